"""Component plan."""
