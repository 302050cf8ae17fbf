"""Dialogs. Each returns its answer through ``dismiss``; none of them changes anything itself. Escape always means no."""
