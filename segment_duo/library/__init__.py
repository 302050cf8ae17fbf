"""Saved mask sets: which there are, under which versions, and those that wait for a server."""
