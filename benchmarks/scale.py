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
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from capnet.commands.preset import read, render

CLASSES = 1000
STAGES = ("ingest", "split", "validate")
SETTINGS = ("ingest.images=listed", "validate.images='off'", "validate.near_duplicates='off'", "runtime.threads=2")


def write_table(path: Path, rows: int, classes: int = CLASSES, seed: int = 0) -> None:
    """labels.csv with sizes and hashes: class k is as frequent as 1 / (k + 10), so that the rarest is rare and
    there.
    """
    rng = np.random.default_rng(seed)
    weights = 1.0 / (np.arange(classes) + 10)
    with open(path, "w") as file:
        file.write("path,labels,group,width,height,sha256\n")
        for start in range(0, rows, 10_000):
            count = min(10_000, rows - start)
            drawn = rng.choice(classes, size=(count, 3), p=weights / weights.sum())
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


def figure(measurements: dict[int, list[tuple[float, float]]], stages: list[str]) -> str:
    """An SVG of seconds over rows, both on logarithmic axes, where linear growth is a line of slope 1 (grey)."""
    width, height, left, bottom = 560, 360, 60, 50
    together = {rows: sum(seconds for seconds, _ in values) for rows, values in measurements.items()}
    lowest, highest = min(min(values)[0] for values in measurements.values()) / 1.5, max(together.values()) * 1.5
    few, many = min(measurements), max(measurements)

    def point(rows: float, seconds: float) -> tuple[float, float]:
        across = np.log(rows / few) / np.log(many / few) if many > few else 0.5
        up = np.log(seconds / lowest) / np.log(highest / lowest)
        return left + 20 + across * (width - left - 130), height - bottom - up * (height - bottom - 20)

    def line(points: list[tuple[float, float]], colour: str, dashes: str = "") -> str:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dashes}"/>'

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif"'
        ' font-size="12">'
    ]
    parts.append(f'<rect width="{width}" height="{height}" fill="white"/>')
    start = together[few]
    parts.append(
        line([point(few, start), point(many, start * many / few)], "#999999", "4 4")
        if start * many / few <= highest
        else ""
    )
    curves = {
        stage: {rows: values[number][0] for rows, values in measurements.items()} for number, stage in enumerate(stages)
    } | {"together": together}
    for (name, curve), colour in zip(curves.items(), ("#0072b2", "#e69f00", "#009e73", "#000000"), strict=False):
        points = [point(rows, curve[rows]) for rows in sorted(curve)]
        parts.append(line(points, colour))
        parts.append(
            f'<text x="{points[-1][0] + 8:.1f}" y="{points[-1][1] + 4:.1f}" fill="{colour}">{name} {curve[many]:.0f}'
            " s</text>"
        )
    for rows in sorted(measurements):
        x, y = point(rows, lowest)
        parts.append(f'<text x="{x:.1f}" y="{y + 18:.1f}" text-anchor="middle">{rows:,}</text>')
    for seconds in (1, 3, 10, 30, 100, 300):
        if lowest <= seconds <= highest:
            parts.append(
                f'<text x="{left - 4}" y="{point(few, seconds)[1] + 4:.1f}" text-anchor="end">{seconds} s</text>'
            )
    parts.append(f'<text x="{(left + width - 110) / 2:.0f}" y="{height - 8}" text-anchor="middle">rows</text>')
    return "\n".join([*filter(None, parts), "</svg>"]) + "\n"


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
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
        options.figure.write_text(figure(measured, options.stages))
