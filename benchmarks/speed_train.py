"""Epochs and evaluations of a trained tower: a ViT-B/16 with random weights on made images, through the stages.

    python -m benchmarks train --out train.json

The time of an epoch is a quarter of the difference between a training of five epochs and one of a single epoch, so
that loading does not count; a training before both has stored what is computed once. Every training is a process of its
own. Compared: adapters in all blocks, in the last two behind stored tokens, and two processes of one thread beside one
of one thread. Then the test rows are scored with a single view and with five.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.matrix_rate import about, ratios, spread
from benchmarks.numbers import from_one

SETTINGS = {
    "backbone": {"name": "ViT-B-16", "pretrained": "random"},
    "ingest": {"images": "decode"},
    "split": {"method": "natural", "validation": {"source": "none"}, "buckets": [20, 5]},
    "train": {
        "batch_size": 16,
        "views": 1,
        "prompt": {"enabled": False},
        "gcn": {"enabled": False},
        "class_head": {"enabled": False},
        "blend": "none",
        "refit": False,
        "out_of_fold": False,
    },
}
ALL, LAST, ONE, TWO = "adapters in all blocks", "in the last two, tokens stored", "one process", "two processes"
# threads, processes and settings of each kind
KINDS: dict[str, tuple[int, int, list[str]]] = {
    ALL: (2, 1, []),
    LAST: (2, 1, ["train.adapter.blocks=2"]),
    ONE: (1, 1, []),
    TWO: (1, 2, []),
}


def make_images(folder: Path, number: int, classes: int) -> None:
    """Noise with three labels each, all classes in turn; a fifth of them are for testing."""
    from PIL import Image

    random = np.random.default_rng(0)
    (folder / "data").mkdir()
    lines = ["path,labels,split"]
    for image in range(number):
        Image.fromarray(random.integers(0, 256, (256, 256, 3), dtype=np.uint8)).save(folder / "data" / f"{image}.png")
        labels = "|".join(f"thing {label % classes:03}" for label in range(image, image + 3))
        lines.append(f"{image}.png,{labels},{'test' if image % 5 == 0 else 'train'}")
    (folder / "data" / "labels.csv").write_text("\n".join(lines) + "\n")
    (folder / "params.yaml").write_text(json.dumps(SETTINGS))


def run(folder: Path, state: str, stage: str, words: Sequence[str], processes: int = 1) -> float:
    """Seconds of a stage, run as a user runs it with a state folder."""
    command = [sys.executable, "-m"]
    if processes > 1:
        command += ["torch.distributed.run", "--nproc-per-node", str(processes), "--standalone", "-m"]
    command += ["capnet.cli", stage, *(part for word in words for part in ("--set", word))]
    start = time.perf_counter()
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "CAPNET_STATE": state}, capture_output=True, text=True, check=False
    )
    taken = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{stage} failed:\n{done.stderr}")
    return taken


def epoch(folder: Path, kind: str) -> float:
    """Seconds of an epoch."""
    threads, processes, settings = KINDS[kind]
    words = [f"runtime.threads={threads}", f"runtime.workers={int(threads > 1)}", *settings]
    with TemporaryDirectory(dir=folder) as state:
        _, one, five = (run(folder, state, "train", [*words, f"train.epochs={n}"], processes) for n in (1, 1, 5))
    return (five - one) / 4


def score(folder: Path, views: int, threads: int) -> float:
    """Seconds of scoring the test rows with a loaded model, decoding included."""
    from capnet.config import Runtime
    from capnet.contracts import read_json, read_split, write_json
    from capnet.evaluation.tte import Scorer

    config = folder / "outputs" / "model" / "config.json"
    settings = read_json(config)
    write_json(config, settings | {"tte": settings["tte"] | {"views": views}})
    table = read_split(folder / "outputs" / "split" / "split.parquet")
    with TemporaryDirectory(dir=folder) as state:
        os.environ["CAPNET_STATE"] = state
        scorer = Scorer(config.parent, Runtime(threads=threads, workers=1))
        start = time.perf_counter()
        scorer.score(table[table["split"] == "test"], folder / "data", "test")
        return time.perf_counter() - start


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds and ratios of everything, in rounds."""
    from capnet.config import Runtime
    from capnet.runtime import resolved

    with TemporaryDirectory() as name:
        folder = Path(name)
        make_images(folder, options.images, options.classes)
        for stage in ("ingest", "split", "validate", "graph"):
            run(folder, str(folder / "state"), stage, [])
        taken: dict[str, list[float]] = {kind: [] for kind in (*KINDS, "one view", "five views")}
        for _ in range(options.rounds):
            for kind in KINDS:
                taken[kind].append(epoch(folder, kind))
                print(f"{kind}: {taken[kind][-1]:.1f} s an epoch", file=sys.stderr)
            for kind, views in (("one view", 1), ("five views", 5)):
                taken[kind].append(score(folder, views, 2))
    return {
        "about": about(2, "wall", resolved(Runtime()).device),
        "images": options.images,
        "seconds": {kind: spread(values) for kind, values in taken.items()},
        "last two blocks, times faster": ratios(taken[ALL], taken[LAST]),
        "two processes, times faster": ratios(taken[ONE], taken[TWO]),
        "five views, times as long": ratios(taken["five views"], taken["one view"]),
    }


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=from_one, default=80)
    parser.add_argument("--classes", type=from_one, default=80)
    parser.add_argument("--rounds", type=from_one, default=3)
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    options = parser.parse_args(arguments)
    result = measure(options)
    print(json.dumps(result, indent=2))
    if options.out:
        options.out.write_text(json.dumps(result, indent=2) + "\n")
