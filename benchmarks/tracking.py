"""What tracking costs a training: `python -m benchmarks tracking` trains without a server, with one, and with one that
stands still.

The training is made: 1,000 classes, features as a frozen tower gives them, and a loop with the usual sizes of model and
batch. Counted are seconds and processor seconds of the training process, whose thread sends.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.numbers import from_one

CLASSES, WIDTH, BATCH = 1000, 512, 64
KINDS = ("without", "healthy", "stalled")


def train(folder: Path, rows: int, epochs: int) -> None:
    """One run in a process of its own; prints its seconds and processor seconds as JSON."""
    import torch

    from capnet.config import Params
    from capnet.tracking.live import tracked

    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(rows, WIDTH, generator=generator)
    labels = (torch.rand(rows, CLASSES, generator=generator) < 3 / CLASSES).float()
    model = torch.nn.Sequential(torch.nn.Linear(WIDTH, 2 * WIDTH), torch.nn.GELU(), torch.nn.Linear(2 * WIDTH, CLASSES))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    begin, busy = time.perf_counter(), time.process_time()
    with tracked("train", Params(), {"split": folder, "graph": folder}, {}) as log:
        for epoch in range(1, epochs + 1):
            for batch in torch.split(torch.randperm(rows, generator=generator), BATCH):
                loss = torch.nn.functional.binary_cross_entropy_with_logits(model(features[batch]), labels[batch])
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
            log({"train/loss": float(loss.detach()), "train/learning_rate": 1e-3, "val/mAP": epoch / epochs}, epoch)
    print(json.dumps([time.perf_counter() - begin, time.process_time() - busy]))


def measure(folder: Path, address: str, rows: int, epochs: int) -> list[float]:
    """One training as a process of its own: seconds, processor seconds."""
    environment = {**os.environ, "MLFLOW_TRACKING_URI": address or "sqlite:///not-there.db", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks", "tracking", "--train", str(folder)]
    command += ["--rows", str(rows), "--epochs", str(epochs)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    result: list[float] = json.loads(done.stdout.splitlines()[-1])
    return result


def spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks tracking",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rows", type=from_one, default=6000, help="training images")
    parser.add_argument("--epochs", type=from_one, default=20)
    parser.add_argument("--rounds", type=from_one, default=3)
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.train:
        train(options.train, options.rows, options.epochs)
        return
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from services.small_server import SmallServer

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in ("split.parquet", "graph.safetensors"):  # only their hashes are taken
            (folder / file).touch()
        server = SmallServer(folder, small=False)
        server.start()
        runs: dict[str, list[list[float]]] = {kind: [] for kind in KINDS}
        try:
            for number in range(options.rounds):
                for kind in KINDS[number % 3 :] + KINDS[: number % 3]:
                    server.send(signal.SIGSTOP if kind == "stalled" else signal.SIGCONT)
                    address = "" if kind == "without" else server.address
                    runs[kind].append(measure(folder, address, options.rows, options.epochs))
        finally:
            server.stop()
    print(f"| {options.rows:,} rows, {options.epochs} epochs, {options.rounds} rounds | seconds | processor seconds |")
    print("|---|---|---|")
    for kind, measured in runs.items():
        seconds, processor = zip(*measured, strict=True)
        print(f"| {kind} | {spread(seconds)} | {spread(processor)} |")
