"""Component train."""
