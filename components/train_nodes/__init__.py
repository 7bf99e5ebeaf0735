"""Component train_nodes."""

from components.train_nodes.component import train_nodes as train_nodes
