"""The trainer, its optimiser, batches, checkpoints and processes, and scores of held-out rows. No metric is computed
here.
"""
