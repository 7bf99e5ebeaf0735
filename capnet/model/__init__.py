"""The method: frozen towers, prompts, label graph, adapters, class head and losses, and the module that joins them.

What is computed and how a model is saved belongs here; how it is trained is in capnet/training, how images become
tensors in capnet/data/images.
"""
