"""Memory of a training on more features than fit into it: `python -m benchmarks features --images 200000`.

Made features of 5 views and 1,280 numbers go into a feature store of their own; a process trains the bridge adapter and
the class head on them for one epoch, without prompts. Prints images, gigabytes of features, the largest memory of that
process as the system counts it (mapped pages of files included), seconds, and images a second.

python -m benchmarks features --images 20000 200000 --folder /var/tmp
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.numbers import from_one

VIEWS, WIDTH, CLASSES, CHUNK = 5, 1280, 80, 1000
KEY = "made"


def made(images: int) -> Iterator[np.ndarray]:
    """float16 [view, pooled] of each image; they repeat after CHUNK images."""
    values = np.random.default_rng(0).standard_normal((CHUNK, VIEWS, WIDTH), dtype=np.float32).astype(np.float16)
    for number in range(images):
        yield values[number % CHUNK]


def train(images: int) -> None:
    """One epoch on the features in the state folder, through the trainer."""
    import pandas as pd
    import torch

    from capnet.config import parse
    from capnet.contracts import LabelGraph, make_classes
    from capnet.data.images.store import FeatureStore
    from capnet.model.backbones import load_towers
    from capnet.runtime import prepare
    from capnet.training.trainer import Trainer

    settings = {"epochs": 1, "batch_size": 256, "prompt": {"enabled": False}, "class_head": {"enabled": True}}
    params = parse({"backbone": {"name": "lit-efflite0-minilm", "pretrained": "wheels"}, "train": settings})
    machine, names = prepare(params.runtime), [f"class {number}" for number in range(CLASSES)]
    towers = load_towers(params.backbone, params.tte.size)
    with torch.no_grad():
        graph = LabelGraph(torch.eye(CLASSES), towers.text(names), {})
    labels = list(np.random.default_rng(1).integers(CLASSES, size=(images, 3)))
    none = [np.empty(0, np.int64)] * images
    rows = pd.DataFrame({"labels": labels, "unknown": none, "image_id": [f"{number:064x}" for number in range(images)]})
    store, hashes = FeatureStore(KEY, VIEWS), rows["image_id"].tolist()
    assert not store.missing(hashes)
    features = store.read(hashes)
    trainer = Trainer(params, make_classes(names), graph, towers, machine, Path())
    model = trainer.new_model()
    trainer.fit(model, rows, features, Path(os.environ["CAPNET_STATE"]) / "train")
    # not getrusage's figure, which a process takes over from the one that started it
    print(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])


def measure(images: int, parent: Path) -> tuple[float, float, float]:
    """Gigabytes of features, gigabytes that a training on them takes at most, and its seconds."""
    from capnet.data.images.store import FeatureStore

    with tempfile.TemporaryDirectory(dir=parent) as folder:
        os.environ["CAPNET_STATE"] = folder
        FeatureStore(KEY, VIEWS).fill([f"{number:064x}" for number in range(images)], made(images))
        size = sum(path.stat().st_size for path in Path(folder).rglob("*.arrow"))
        start = time.perf_counter()
        command = [sys.executable, "-m", "benchmarks", "features", "--train", str(images)]
        kilobytes = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.split()[-1]
        return size / 2**30, int(kilobytes) / 2**20, time.perf_counter() - start


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks features",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--images", type=from_one, nargs="+", default=[20_000, 200_000])
    parser.add_argument("--folder", type=Path, help="where the features lie meanwhile; default: the temporary folder")
    parser.add_argument("--train", type=from_one, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.train:
        train(options.train)
        return
    print("| images | features GiB | memory GiB | seconds | images a second |\n|---|---|---|---|---|")
    for images in options.images:
        size, memory, seconds = measure(images, options.folder)
        print(f"| {images:,} | {size:.2f} | {memory:.2f} | {seconds:.0f} | {images / seconds:.0f} |", flush=True)
