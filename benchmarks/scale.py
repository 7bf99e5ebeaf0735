"""How long ingest, split and validate take for tables of many rows: `python benchmarks/scale.py --rows 100000 1000000`.

The table is made: long-tailed labels of 1,000 classes, three a row on average, and pictures that are never opened
(`ingest.pictures: listed`). Prints a Markdown table with seconds and the largest memory of each stage.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

CLASSES = 1000
STAGES = ("ingest", "split", "validate")
SETTINGS = ("ingest.pictures=listed", "validate.pictures='off'", "validate.near_duplicates='off'", "runtime.threads=2")


def write_table(path: Path, rows: int, classes: int = CLASSES, seed: int = 0) -> None:
    """labels.csv with sizes and hashes: class k is as frequent as 1 / (k + 10), so that the rarest is rare and there."""
    rng = np.random.default_rng(seed)
    weights = 1.0 / (np.arange(classes) + 10)
    with open(path, "w") as file:
        file.write("path,labels,group,width,height,sha256\n")
        for start in range(0, rows, 10_000):
            count = min(10_000, rows - start)
            drawn = rng.choice(classes, size=(count, 3), p=weights / weights.sum())
            for number, labels in enumerate(drawn.tolist(), start=start):
                written = "|".join(f"class {c:04d}" for c in sorted(set(labels)))
                file.write(f"images/{number // 1000:04d}/{number:08d}.jpg,{written},site {number // 20},640,480,{number:064x}\n")


def measure(stage: str, folder: Path) -> tuple[float, float]:
    """Seconds and gigabytes of one stage, run as a user runs it."""
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "capnet.cli", stage, *settings], cwd=folder)
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"{stage} failed")
    return time.perf_counter() - start, usage.ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--stages", nargs="+", default=list(STAGES))
    options = parser.parse_args()
    print("| rows | " + " | ".join(f"{stage} s | GB" for stage in options.stages) + " | together s |")
    print("|---" * (2 * len(options.stages) + 2) + "|")
    for rows in options.rows:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "data").mkdir()
            write_table(folder / "data" / "labels.csv", rows)
            preset = subprocess.run([sys.executable, "-m", "capnet.cli", "preset", "own"], capture_output=True, text=True, check=True)
            (folder / "params.yaml").write_text(preset.stdout)
            found = [measure(stage, folder) for stage in options.stages]
        cells = " | ".join(f"{seconds:.1f} | {memory:.2f}" for seconds, memory in found)
        print(f"| {rows:,} | {cells} | {sum(seconds for seconds, _ in found):.1f} |", flush=True)


if __name__ == "__main__":
    main()
