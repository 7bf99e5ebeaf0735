"""Component validate."""
