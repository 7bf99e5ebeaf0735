"""How long ingest, split and validate take for tables of many rows: `python -m benchmarks scale --rows 100000 1000000`.

The table is made: long-tailed labels of 1,000 classes, three a row on average, and images that are never opened
(`ingest.images: listed`). Prints a Markdown table with seconds and the largest memory of each stage.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.drawing import pyplot, save
from benchmarks.numbers import from_one
from capnet.commands.preset import read, render

CLASSES = 1000
STAGES = ("ingest", "split", "validate")
SETTINGS = ("ingest.images=listed", "validate.images='off'", "validate.near_duplicates='off'", "runtime.threads=2")


def write_table(path: Path, rows: int) -> None:
    """labels.csv with sizes and hashes: class k is as frequent as 1 / (k + 10), so that even the rarest occurs."""
    rng = np.random.default_rng(0)
    weights = 1.0 / (np.arange(CLASSES) + 10)
    with open(path, "w") as file:
        file.write("path,labels,group,width,height,sha256\n")
        for start in range(0, rows, 10_000):
            count = min(10_000, rows - start)
            drawn = rng.choice(CLASSES, size=(count, 3), p=weights / weights.sum())
            for number, labels in enumerate(drawn.tolist(), start=start):
                written = "|".join(f"class {c:04d}" for c in sorted(set(labels)))
                file.write(
                    f"images/{number // 1000:04d}/{number:08d}.jpg,{written},site"
                    f" {number // 20},640,480,{number:064x}\n"
                )


def measure(stage: str, folder: Path) -> tuple[float, float]:
    """Seconds and gibibytes of one stage, run as a user runs it."""
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "capnet.cli", stage, *settings], cwd=folder)
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"{stage} failed")
    return time.perf_counter() - start, usage.ru_maxrss / 2**20


def figure(measurements: Mapping[int, Sequence[tuple[float, float]]], stages: Sequence[str], out: Path) -> None:
    """Draw seconds over rows, both on logarithmic axes, where linear growth is a line of slope 1 (dashed).

    Args:
        measurements: by number of rows, seconds and gibibytes of each stage.
        stages: their names.
        out: the file; its suffix says the kind.
    """
    rows = sorted(measurements)
    seconds = np.array([[taken for taken, _ in measurements[number]] for number in rows])  # [rows, stage]
    together = seconds.sum(axis=1)
    page, axes = pyplot().subplots(figsize=(7, 4.5), layout="constrained")
    for name, curve in zip(stages, seconds.T, strict=True):
        axes.loglog(rows, curve, marker="o", label=f"{name} {curve[-1]:.0f} s")
    axes.loglog(rows, together, "ko-", label=f"together {together[-1]:.0f} s")
    axes.loglog(rows, together[0] * np.array(rows) / rows[0], "--", color="#999999", label="linear growth")
    axes.set(xlabel="rows", ylabel="seconds")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.legend(frameon=False)
    save(page, out)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks scale", description=__doc__)
    parser.add_argument("--rows", type=from_one, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--stages", nargs="+", default=list(STAGES))
    parser.add_argument("--figure", type=Path, help="SVG file to write")
    options = parser.parse_args(arguments)
    print("| rows | " + " | ".join(f"{stage} s | GiB" for stage in options.stages) + " | together s |")
    print("|---" * (2 * len(options.stages) + 2) + "|")
    measured: dict[int, list[tuple[float, float]]] = {}
    for rows in options.rows:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "data").mkdir()
            write_table(folder / "data" / "labels.csv", rows)
            (folder / "params.yaml").write_text(render(read("own"), "preset own"))
            stage_values = measured[rows] = [measure(stage, folder) for stage in options.stages]
        cells = " | ".join(f"{seconds:.1f} | {memory:.2f}" for seconds, memory in stage_values)
        print(f"| {rows:,} | {cells} | {sum(seconds for seconds, _ in stage_values):.1f} |", flush=True)
    if options.figure:
        figure(measured, options.stages, options.figure)
