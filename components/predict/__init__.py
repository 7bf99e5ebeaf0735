"""Component predict."""
