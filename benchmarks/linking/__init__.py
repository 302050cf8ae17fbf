"""How well masks of frames are linked into tracks."""
