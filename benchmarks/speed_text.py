"""Memory and time of the prompts of many classes: a ViT-B/16 text tower with random weights, forward and backward.

    python -m benchmarks text --classes 250 500 1000 --threads 2 --out text.json

Each number of classes is measured in a process of its own. Its peak of resident memory is reported, and in the JSON
what it held before the first step.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.matrix_rate import CLOCKS, about, seconds, spread
from benchmarks.numbers import from_one


def measure(backbone: str, classes: int, chunk: int, threads: int, clock: str, rounds: int) -> dict[str, Any]:
    """Seconds and peak memory in bytes of forward and backward of the prompts of ``classes`` classes, here and now."""
    from capnet.config import Backbone, Prompt, parse
    from capnet.model.backbones import load_towers
    from capnet.model.prompts import PromptLearner
    from capnet.runtime import prepare

    machine = prepare(parse({"runtime": {"threads": threads, "device": "cpu"}}).runtime)
    text = load_towers(Backbone(name=backbone, pretrained="random")).text
    names = [f"thing {number:04}" for number in range(classes)]
    prompts = PromptLearner(text, names, Prompt(init="normal", length=16, chunk=chunk))

    def step() -> None:
        with machine.autocast():
            features = prompts(text)
        features.float().square().sum().backward()

    before = _peak_bytes()
    step()
    taken = [seconds(step, CLOCKS[clock]) for _ in range(rounds)]
    return {
        "classes": classes,
        "chunk": chunk,
        "precision": machine.precision,
        "seconds": spread(taken),
        "bytes before the first step": before,
        "bytes": _peak_bytes(),
    }


def _peak_bytes() -> int:
    """The most resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The result as Markdown."""
    lines = ["| classes | in memory at a time | seconds | ms a class | peak memory |", "|---|---|---|---|---|"]
    for row in rows:
        median = row["seconds"]["median"]
        each, memory = 1000 * median / row["classes"], row["bytes"] / 1e9
        chunk = "all" if row["chunk"] >= row["classes"] else str(row["chunk"])
        lines.append(f"| {row['classes']:,} | {chunk} | {median:.2f} | {each:.1f} | {memory:.2f} GB |")
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks text", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", default="ViT-B-16", help="of open_clip (default: ViT-B-16)")
    parser.add_argument("--classes", type=from_one, nargs="+", default=[125, 250, 500, 1000])
    parser.add_argument("--chunk", type=from_one, nargs="+", default=[256], help="classes in memory at a time")
    parser.add_argument("--threads", type=from_one, default=2)
    parser.add_argument("--rounds", type=from_one, default=5)
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="processor: time of a single thread")
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.clock == "processor" and options.threads > 1:
        parser.error("--clock processor measures one thread: add --threads 1")
    if options.here:
        [classes], [chunk] = options.classes, options.chunk
        print(json.dumps(measure(options.backbone, classes, chunk, options.threads, options.clock, options.rounds)))
        return
    shared = ["--threads", str(options.threads), "--rounds", str(options.rounds), "--clock", options.clock]
    rows: list[dict[str, Any]] = []
    for chunk in options.chunk:
        for classes in options.classes:
            counts = ["--backbone", options.backbone, "--classes", str(classes), "--chunk", str(chunk), "--here"]
            command = [sys.executable, "-m", "benchmarks", "text", *shared, *counts]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            rows.append(json.loads(done.stdout.splitlines()[-1]))
    if options.out:
        result = {"about": about(options.threads, options.clock), "rows": rows}
        options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(table(rows))
