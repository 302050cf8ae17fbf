"""The loupe pane."""
