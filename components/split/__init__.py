"""Component split."""
