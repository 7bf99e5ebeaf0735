"""One figure of ablation tables: what is served minus the linear probe, a line a set, from the JSON that the benchmark
writes.

python -m benchmarks.ablation_figure ablation.json shares.json --out docs/images/results.svg
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.drawing import pyplot, save

COLOURS = {"mAP": "#1f5fbf", "tail": "#b5451b"}


def draw(differences: dict[str, dict[str, list[float]]], out: Path) -> None:
    """Write the figure.

    Args:
        differences: by set and mean (mAP, tail): difference in points, its low and its high end.
        out: the file; its suffix says the kind.
    """
    page, axes = pyplot().subplots(figsize=(8, 0.55 * len(differences) + 1.2), layout="constrained")
    for row, values in enumerate(differences.values()):
        for shift, (name, (value, low, high)) in zip((-0.15, 0.15), values.items(), strict=False):
            line: dict[str, Any] = {
                "color": COLOURS[name],
                "fmt": "o",
                "capsize": 3,
                "label": {"mAP": "all classes", "tail": "tail"}[name] if row == 0 else None,
            }
            axes.errorbar(value, row + shift, xerr=[[value - low], [high - value]], **line)
    axes.axvline(0, color="#555555", linewidth=1)
    axes.set_yticks(range(len(differences)), list(differences))
    axes.invert_yaxis()
    axes.set_xlabel("what preset own serves minus the linear probe: points of average precision, 95 % interval")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    save(page, out)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="+", type=Path, metavar="JSON")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args(argv)
    differences: dict[str, Any] = {}
    for path in arguments.tables:
        differences |= {name: rows["served"] for name, rows in json.loads(path.read_text()).items()}
    draw(
        {name: {mean: values[mean] for mean in COLOURS if mean in values} for name, values in differences.items()},
        arguments.out,
    )


if __name__ == "__main__":
    main()
