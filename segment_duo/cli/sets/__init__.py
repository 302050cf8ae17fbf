"""``segduo masks``: saved sets, one file for what belongs together."""
