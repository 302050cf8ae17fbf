"""Models: which there are (``known``), which one runs (``registry``, ``choice``), and how they come here (``download``, ``adding``). No torch."""
