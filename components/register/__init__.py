"""Component register."""
