"""The state folder: training checkpoints and caches, keyed by hashes; never an output, never under DVC."""

from __future__ import annotations

import os
from pathlib import Path


def state_dir(kind: str) -> Path:
    """``$CAPNET_STATE/kind`` (default ``.capnet/kind``), made when missing."""
    path = Path(os.environ.get("CAPNET_STATE", ".capnet")) / kind
    path.mkdir(parents=True, exist_ok=True)
    return path
