"""The benchmark of the label graph on folders of images: which it refuses, and what trainings start from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import graph
from benchmarks.graph_rows import Curve
from benchmarks.graph_training import read_set, scores
from capnet.errors import DataError
from capnet.model.capnet import CapNet
from tests.unit.model import tiny


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twenty small images of noise with two labels."""
    monkeypatch.setenv("CAPNET_STATE", str(tmp_path / "state"))
    root, rng, lines = tmp_path / "made", np.random.default_rng(0), ["path,labels"]
    root.mkdir()
    for number in range(20):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(root / f"{number}.png")
        lines.append(f"{number}.png,{'ab'[number % 2]}")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.mark.slow  # trains
@pytest.mark.parametrize("backbone", ["tiny-clip", "tiny-resnet"])
def test_scale_and_bias_start_from_the_images_of_any_tower(
    backbone: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """train.head.start is data, also where the tower is trained on images instead of stored features."""
    monkeypatch.setattr("benchmarks.graph_training.ROWS", ("none",))
    prepared: list[int] = []
    monkeypatch.setattr(CapNet, "prepare_for", lambda model, pooled, *labels: prepared.append(len(pooled)))
    tiny.register(backbone, tmp_path / "tiny")
    data = read_set("made", folder, Curve("natural"))
    train = {"prompt": {"enabled": False}, "epochs": 1, "select": "last"}
    runtime = {"threads": 1, "workers": 0}
    scores(data, {"backbone": {"name": backbone, "pretrained": "random"}, "train": train, "runtime": runtime}, [0])
    assert prepared == [len(data.train)]


@pytest.mark.parametrize("part", ["rows", "training"])
def test_unknown_labels_are_refused(part: str, folder: Path, tmp_path: Path) -> None:
    """They would count as absent: in a table with a column for each class an empty cell is one."""
    tiny.register("tiny-clip", tmp_path / "tiny")
    (folder / "classes.csv").write_text("name\na\nb\n")
    (folder / "labels.csv").write_text("path,a,b\n0.png,1,0\n1.png,,1\n")
    words = ["--data", f"made={folder}", "--parts", part, "--backbone", "tiny-clip", "--pretrained", "random"]
    with pytest.raises(DataError, match="unknown labels, which would count as absent: 1 of 2 images"):
        graph.main(words)
