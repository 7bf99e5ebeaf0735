"""A model to predict with, and a folder of pictures for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from unit.stores import Make

from capnet.serving.engine import Served, load_served


@pytest.fixture
def served(make_outputs: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Served:
    """A tiny model after its evaluation."""
    monkeypatch.setenv("CAPNET_STATE", str(tmp_path / "state"))
    paths = make_outputs()
    return load_served(paths["model"], paths["evaluation"] / "thresholds.json")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Seven pictures in two folders, one of them damaged, and a file that is none."""
    random = np.random.default_rng(0)
    workspace = tmp_path / "pictures"
    for number in range(7):
        path = workspace / f"camera {number % 2}" / f"é{number}.JPG"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(path, format="JPEG")
    broken = workspace / "camera 1" / "é3.JPG"
    broken.write_bytes(broken.read_bytes()[:500])
    (workspace / "notes.txt").write_text("x")
    return workspace
