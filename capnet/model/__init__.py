"""Towers, prompts, graph, adapters, losses and the CapNet module."""
