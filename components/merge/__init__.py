"""Component merge."""
