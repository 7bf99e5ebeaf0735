"""Component train_nodes."""
