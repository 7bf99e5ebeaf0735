"""The state folder: training checkpoints and caches, keyed by hashes; never an output, never under DVC."""

from __future__ import annotations

import os
from pathlib import Path

from capnet.errors import check_writable, machine_faults


def state_dir(kind: str) -> Path:
    """``$CAPNET_STATE/kind`` (default ``.capnet/kind``), made when missing; a state folder that is made here is its
    owner's alone, one that was there keeps its modes (a volume that several accounts share).

    Raises CapnetError where it cannot be written to.
    """
    base = Path(os.environ.get("CAPNET_STATE", ".capnet"))
    path = base / kind
    with machine_faults(path, "the state folder cannot be used"):
        base.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.mkdir(parents=True, exist_ok=True)
        check_writable(path)
    return path
