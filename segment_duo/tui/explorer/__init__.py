"""The file explorer pane."""
