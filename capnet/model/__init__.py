"""Towers, prompts, graph, adapters, losses and the CapNet module: what is computed, not how it is trained."""
