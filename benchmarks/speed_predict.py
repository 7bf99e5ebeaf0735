"""How fast a model labels images: `python -m benchmarks predict --model outputs --images data`.

In turns, in one process: the plain path (one image a forward pass, decoded by the thread that encodes it), this
program's path, decoding alone and forward alone. ``--against`` runs another checkout of this program in turns with this
one, each in a process that has loaded the model, and compares what they write.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.matrix_rate import MATRIX_FLOPS, about, in_turns, matrix_product, ratios, spread
from benchmarks.numbers import from_one

# works with every version of this program: loads, warms up, then predicts each time it is asked to
PREDICTOR = """
import sys, time
from pathlib import Path
from capnet.config import Runtime
from capnet.serving.engine import load_served
from capnet.serving.predict import predict
try:
    from capnet.serving.image_source import Source, list_images
except ModuleNotFoundError:  # an earlier version
    from capnet.serving.predict import Source, list_images
model, images, out, number = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
served = load_served(model / "model", model / "evaluation" / "thresholds.json", Runtime(threads=int(sys.argv[5])))
source = list_images(images)
source = Source(source.names[:number], source.root)
predict(served, "warm", Source(source.names[:8], source.root), out)
print("ready", flush=True)
for _ in sys.stdin:
    begin = time.perf_counter()
    predict(served, "benchmark", source, out)
    print(time.perf_counter() - begin, flush=True)
"""


def main(arguments: Sequence[str]) -> None:
    """Measure and print; with --json also write what was measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks predict", description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("outputs"), help="folder of outputs, default outputs")
    parser.add_argument("--images", type=Path, default=Path("data"), help="folder of images, default data")
    parser.add_argument("--number", type=from_one, default=200, help="images of a turn, default 200")
    parser.add_argument("--turns", type=from_one, default=5, help="default 5")
    parser.add_argument("--threads", type=from_one, default=2, help="runtime.threads, default 2")
    parser.add_argument("--against", type=Path, help="another checkout of this program")
    parser.add_argument("--json", type=Path, help="file to write")
    options = parser.parse_args(arguments)
    result = measure(options.model, options.images, options.number, options.turns, options.threads)
    if options.against:
        result["against"] = compare(options)
    print(json.dumps(result, indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


def measure(model: Path, images: Path, number: int, turns: int, threads: int) -> dict[str, Any]:
    """Milliseconds an image of each path, median and range over ``turns``, and the machine's matrix rate."""
    import torch

    from capnet.config import Runtime
    from capnet.data.images.loader import chunked, load_batches
    from capnet.data.images.stream import BATCH_VIEWS, encode_batches
    from capnet.data.images.transform import Item
    from capnet.serving.engine import load_served
    from capnet.serving.image_source import list_images

    thresholds = model / "evaluation" / "thresholds.json"
    ours = load_served(model / "model", thresholds, Runtime(threads=threads))
    plain = load_served(model / "model", thresholds, Runtime(threads=threads, precision="fp32", workers=0))
    source = list_images(str(images))
    names = source.names[:number]
    scorer = ours.scorer
    tower, machine = scorer.loaded.model, scorer.machine

    def batches() -> Iterator[Any]:
        chunks = chunked(map(Item, names), BATCH_VIEWS)
        return load_batches(chunks, source.root, scorer.transform, machine, threads, len(names))

    def forward(decoded: Sequence[Any]) -> None:
        side_by_side = tower.towers.image.is_convolutional
        for _ in encode_batches(tower.pooled, decoded, scorer.transform, machine, threads, side_by_side):
            pass

    def one_at_a_time() -> None:
        for name in names:
            list(plain.stream([name], source.root, 1))

    decoded = list(batches())
    paths: dict[str, Callable[[], Any]] = {
        "plain": one_at_a_time,
        "ours": lambda: list(ours.stream(names, source.root, len(names))),
        "decode": lambda: sum(1 for _ in batches()),
        "forward": lambda: forward(decoded),
    }
    torch.set_num_threads(threads)
    types = {"fp32": torch.float32, "bf16": torch.bfloat16}
    rates = {name: matrix_product(dtype, machine.device) for name, dtype in types.items()}
    taken = in_turns(paths | rates, time.perf_counter, turns)
    floor = [decode + forward for decode, forward in zip(taken["decode"], taken["forward"], strict=True)]
    return {
        **about(threads, "wall", machine.device),
        "images": len(names),
        "views": scorer.transform.views,
        "workers": machine.workers,
        "milliseconds_an_image": {name: spread([1000 * value / len(names) for value in taken[name]]) for name in paths},
        "times_faster_than_plain": ratios(taken["plain"], taken["ours"]),
        "share_of_floor": ratios(taken["ours"], floor),
        "matrix_gflops": {name: spread([MATRIX_FLOPS / value / 1e9 for value in taken[name]]) for name in rates},
    }


@contextmanager
def predictor(checkout: Path, options: argparse.Namespace, out: Path) -> Iterator[Callable[[], float]]:
    """A process of ``checkout`` that has loaded the model; each call predicts all images and returns the seconds."""
    words = [str(item.absolute()) for item in (options.model, options.images, out)]
    process = subprocess.Popen(
        [sys.executable, "-c", PREDICTOR, *words, str(options.number), str(options.threads)],
        env={**os.environ, "PYTHONPATH": str(checkout.absolute())},
        cwd=checkout,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    stdin, stdout = process.stdin, process.stdout

    def call() -> float:
        stdin.write("go\n")
        stdin.flush()
        return float(stdout.readline())

    try:
        assert stdout.readline() == "ready\n"
        yield call
    finally:
        stdin.close()
        process.wait()


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Two checkouts in turns: how many times faster this one is, and the share of labels that are the same."""
    here = Path(__file__).parents[1]
    with tempfile.TemporaryDirectory() as folder:
        outs = [Path(folder, f"{name}.parquet") for name in ("before", "now")]
        with predictor(options.against, options, outs[0]) as before, predictor(here, options, outs[1]) as now:
            seconds_before, seconds_now = zip(*((before(), now()) for _ in range(options.turns)), strict=True)
        tables = [pd.read_parquet(out) for out in outs]
    assert tables[0]["path"].equals(tables[1]["path"])
    columns = [name for name in map(str, tables[0]) if name.startswith("score ")]
    limits = json.loads((options.model / "evaluation" / "thresholds.json").read_text())["classes"]
    scores = [table[columns].to_numpy() for table in tables]
    decided = [item >= np.array([one["threshold"] for one in limits], dtype=np.float32) for item in scores]
    return {
        "seconds_before": spread(seconds_before),
        "seconds_now": spread(seconds_now),
        "times_faster": ratios(seconds_before, seconds_now),
        "same_labels": float((decided[0] == decided[1]).mean()),
        "largest_score_difference": float(np.nanmax(np.abs(scores[0] - scores[1]))),
    }
