"""What the terminal UI costs: processor time of strokes and of long lists."""
