"""Models: which there are (``registry``), how to get them (``download``) and how to build them (``build``, the only part that imports torch)."""
