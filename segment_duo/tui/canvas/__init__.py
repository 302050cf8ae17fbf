"""The picture pane: the image with its overlays, and the rulers that show where the cross-hair is."""
