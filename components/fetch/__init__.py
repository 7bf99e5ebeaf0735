"""Component fetch."""
