"""CAPNET: long-tailed multi-label recognition with CLIP, from pictures to a registered model."""

__version__ = "0.1.0"
