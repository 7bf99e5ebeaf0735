"""A few drawn pictures with squares, a tiny tower, and stages graph and train on them."""

import hashlib

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from capnet.config import parse
from capnet.contracts import label_matrix, make_classes, write_classes, write_split
from capnet.stages import run
from capnet.training import checkpoint, trainer

NAMES = ["red square", "green square", "blue square"]
COLOURS = [(220, 30, 30), (30, 200, 40), (40, 60, 220)]


@pytest.fixture
def made(tmp_path, monkeypatch):
    """32 images with squares of up to three colours, split 20 / 6 / 6, under tmp_path."""
    monkeypatch.setenv("CAPNET_STATE", str(tmp_path / "state"))
    rng = np.random.default_rng(0)
    rows = []
    for number in range(32):
        labels = np.flatnonzero(rng.random(3) < 0.5)
        pixels = np.full((48, 60, 3), 128, dtype=np.uint8)
        for c in labels:
            x, y = rng.integers(0, 30), rng.integers(0, 20)
            pixels[y : y + 24, x : x + 24] = COLOURS[c]
        path = f"{number}.png"
        (tmp_path / "data").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "data" / path)
        sha256 = hashlib.sha256((tmp_path / "data" / path).read_bytes()).hexdigest()
        split = "train" if number < 20 else "val" if number < 26 else "test"
        rows.append(
            {
                "image_id": str(number),
                "path": path,
                "labels": labels,
                "unknown": [0] if number % 7 == 0 and 0 not in labels else [],
                "width": 60,
                "height": 48,
            }
        )
        rows[-1] |= {"sha256": sha256, "group": None, "slice": None, "given_split": None, "split": split}
    return tmp_path, pd.DataFrame(rows)


def write_inputs(folder, frame, names=NAMES):
    labels = label_matrix(frame["labels"], len(names))[(frame["split"] == "train").to_numpy()]
    (folder / "split").mkdir(exist_ok=True)
    write_classes(
        folder / "split" / "classes.json", make_classes(names).with_counts(labels.sum(axis=0).tolist(), (10, 5))
    )
    write_split(folder / "split" / "split.parquet", frame)
    (folder / "validation").mkdir(exist_ok=True)


def run_both(folder, backbone, runtime=None, **train):
    settings = {
        "backbone": {"name": backbone, "pretrained": "random"},
        "tte": {"expand": 8},
        "runtime": {"threads": 1, "precision": "fp32", **(runtime or {})},
        "train": {"epochs": 1, "batch_size": 16, "folds": 2, **train},
    }
    params = parse(settings)
    inputs = {"split": folder / "split", "validation": folder / "validation"}
    run("graph", params, inputs, {"graph": folder / "graph"})
    return params, run(
        "train", params, {**inputs, "graph": folder / "graph", "data": folder / "data"}, {"model": folder / "model"}
    )


@pytest.fixture
def tiny_backbone(tmp_path):
    from tests.unit.model import tiny

    tiny.register("tiny-clip", tmp_path / "configs")
    return "tiny-clip"


FULL = {"class_head": {"enabled": True}, "blend": "held_out"}


def stop_after(steps, monkeypatch):
    """Let trainings write a checkpoint at every step, and kill the first one that wants to make more steps than these.

    Returns:
        The epoch of every step that is made.
    """
    epochs, ends, step = [], {steps}, trainer.Trainer.step

    def counted(self, *arguments):
        if len(epochs) in ends:
            ends.clear()
            raise KeyboardInterrupt
        epochs.append(arguments[-1])
        return step(self, *arguments)

    monkeypatch.setattr(checkpoint, "SAVE_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(checkpoint, "SAVE_PAUSE", 0.0)
    monkeypatch.setattr(trainer.Trainer, "step", counted)
    return epochs
