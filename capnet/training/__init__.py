"""The training loop, its samplers, checkpoints and processes. No metric is computed here."""
