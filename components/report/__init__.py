"""Component report."""
