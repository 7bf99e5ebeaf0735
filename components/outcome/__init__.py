"""Component outcome."""
