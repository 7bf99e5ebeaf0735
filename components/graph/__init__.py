"""Component graph."""
