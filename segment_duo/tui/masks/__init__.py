"""The mask list pane."""
