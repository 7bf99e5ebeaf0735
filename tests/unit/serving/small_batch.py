"""A model to predict with, a folder of pictures for it, and what an interrupted prediction leaves."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image
from unit.stores import Make

from capnet.serving import predict as prediction
from capnet.serving.engine import Served, load_served
from capnet.serving.image_source import Source


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


def leave_all_parts(
    served: Served, source: Source, out: Path, images_per_part: int = prediction.IMAGES_PER_PART
) -> None:
    """What there is after a call that was interrupted just before it wrote its output."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prediction, "write", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            prediction.predict(served, "m", source, out, images_per_part=images_per_part)
