"""What tracking costs: `python benchmarks/tracking.py` trains with and without a real MLflow server in turn.

The set is made: 1,000 classes, features of images as a frozen tower gives them, and 20 epochs of the training loop
with the usual sizes of model and batch. Both sides validate and log alike; only one has an address. Counted are
seconds, and processor seconds of the training process and of the process that sends; the server's own are left out, as
it is another machine elsewhere. A relay in front of the server counts the requests for per-class metrics: they are one
call of log_batch, which MLflow splits where it has more than 1,000 values.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CLASSES, WIDTH, BATCH = 1000, 512, 64
ADDRESS = "MLFLOW_TRACKING_URI"


def train(rows: int, epochs: int, seed: int = 0) -> None:
    """One run in a process of its own; prints seconds and processor seconds, the sender's included, as JSON."""
    import resource

    import numpy as np
    import torch

    from capnet.config import Params
    from capnet.evaluation.metrics import bucket_masks, mean_over, rank, weighted_average_precision
    from capnet.tracking.live import tracked

    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(rows, WIDTH, generator=generator)
    labels = (torch.rand(rows, CLASSES, generator=generator) < 3 / CLASSES).float()
    model = torch.nn.Sequential(torch.nn.Linear(WIDTH, 2 * WIDTH), torch.nn.GELU(), torch.nn.Linear(2 * WIDTH, CLASSES))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    masks = bucket_masks(["head"] * 100 + ["medium"] * 300 + ["tail"] * 600)
    begin = time.perf_counter()
    with tracked("train", Params(), {}, {}) as log:
        for epoch in range(1, epochs + 1):
            for batch in torch.split(torch.randperm(rows, generator=generator), BATCH):
                loss = torch.nn.functional.binary_cross_entropy_with_logits(model(features[batch]), labels[batch])
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
            with torch.no_grad():
                scores = model(features[:1000]).sigmoid().numpy()
            truth = labels[:1000].bool().numpy()
            ap = weighted_average_precision(rank(truth, scores, np.ones_like(truth)), np.ones((len(truth), 1)))
            means = {f"val/{name}": float(mean_over(ap, mask)[0]) for name, mask in masks.items()}
            log({"train/loss": float(loss.detach()), "train/learning_rate": 1e-3, **means}, epoch)
    seconds = time.perf_counter() - begin
    # children: those that have ended
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(json.dumps({"seconds": seconds, "processor": sum(usage.ru_utime + usage.ru_stime for usage in used)}))


def measure(state: Path, address: str, rows: int, epochs: int) -> dict[str, float]:
    """One training as a process of its own, without an address into a spool only."""
    environment = {name: value for name, value in os.environ.items() if name != ADDRESS} | {
        "CAPNET_STATE": str(state),
        "OMP_NUM_THREADS": "1",
    }
    environment |= {ADDRESS: address or "sqlite:///not-there.db", "MLFLOW_DISABLE_TELEMETRY": "true"}
    command = [sys.executable, __file__, "--train", "--rows", str(rows), "--epochs", str(epochs)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def requests_of_a_registration(address: str, server: Any, folder: Path) -> tuple[int, int]:
    """Calls of log-batch that carry per-class metrics, and how many such metrics they carry, as the relay saw them."""
    from unit.conftest import _make

    from capnet.config import Register
    from capnet.registry.candidate import PER_CLASS, read_candidate
    from capnet.registry.register import register_version

    paths = _make(folder / "outputs", n_classes=CLASSES, epochs=20)
    os.environ |= {ADDRESS: address, "CAPNET_STATE": str(folder / "state")}
    register_version(
        Register(name="thousand", experiment="thousand"), read_candidate(**paths), paths["evaluation"] / "report.html"
    )
    kinds = tuple(f"{kind}/" for kind in PER_CLASS)
    batches = [json.loads(body).get("metrics", []) for path, body in server.seen if path.endswith("/runs/log-batch")]
    counts = [sum(metric["key"].startswith(kinds) for metric in batch) for batch in batches]
    return sum(count > 0 for count in counts), sum(counts)


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=6000, help="training images")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--train", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.train:
        train(options.rows, options.epochs)
        return
    root = Path(__file__).resolve().parents[1]
    sys.path[:0] = [str(root / "tests"), str(root)]
    from services.small_server import SmallServer
    from unit.registry.unreliable import unreliable

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server = SmallServer(folder, small=False)
        server.start()
        try:
            with unreliable(server.address) as relay:
                by_kind: dict[str, list[dict[str, float]]] = {"without": [], "with": []}
                for number in range(options.rounds):
                    for kind in ("without", "with") if number % 2 == 0 else ("with", "without"):
                        by_kind[kind].append(
                            measure(
                                folder / "state", relay.address if kind == "with" else "", options.rows, options.epochs
                            )
                        )
                print(
                    f"| {options.rows:,} rows, {CLASSES:,} classes, {options.epochs} epochs, {options.rounds} rounds |"
                    " seconds | processor seconds |"
                )
                print("|---|---|---|")
                for kind, runs in by_kind.items():
                    print(
                        f"| {kind} tracking | {spread([run['seconds'] for run in runs])} |"
                        f" {spread([run['processor'] for run in runs])} |"
                    )
                pairs = list(zip(by_kind["with"], by_kind["without"], strict=True))
                shares = {
                    key: [100 * (one[key] / other[key] - 1) for one, other in pairs] for key in ("seconds", "processor")
                }
                print(f"| tracking costs, % | {spread(shares['seconds'])} | {spread(shares['processor'])} |")
                extra = statistics.median(one["processor"] - other["processor"] for one, other in pairs)
                print(
                    f"\nA run costs {extra:.1f} processor seconds, most of them once: under 3 % of trainings from"
                    f" {extra / 0.03:.0f} processor seconds on."
                )
                relay.seen.clear()
                calls, metrics = requests_of_a_registration(relay.address, relay, folder)
                print(
                    f"A registration sends {metrics:,} per-class metrics in {calls} requests, of which MLflow fills"
                    " each with 1,000 values."
                )
        finally:
            server.stop()


if __name__ == "__main__":
    main()
