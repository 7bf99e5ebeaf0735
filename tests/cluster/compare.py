"""Compare an evaluation.json with that of a registered model.

`python tests/cluster/compare.py FILE MODEL ALIAS [--tolerance 1e-6]`
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def figures(content: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every figure with its place, such as capnet/mAP; items of a list by their number."""
    if isinstance(content, list):
        content = {str(number): value for number, value in enumerate(content)}
    if isinstance(content, dict):
        for key, value in content.items():
            yield from figures(value, f"{name}/{key}" if name else key)
    else:
        yield name, content


def differences(ours: Any, theirs: Any, tolerance: float) -> list[str]:
    """One line for every figure that only one side has, or that differs by more."""
    left, right = dict(figures(ours)), dict(figures(theirs))
    differing = [f"{name}: only in one of the two" for name in sorted(left.keys() ^ right.keys())]
    for name in sorted(left.keys() & right.keys()):
        a, b = left[name], right[name]
        numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (a, b))
        if a != b and not (numbers and abs(a - b) <= tolerance):
            differing.append(f"{name}: {a} here, {b} there")
    return differing


def registered(model: str, alias: str) -> Any:
    """evaluation.json of the run that a registered version came from."""
    import mlflow

    version = mlflow.MlflowClient().get_model_version_by_alias(model, alias)
    return json.loads(
        Path(mlflow.artifacts.download_artifacts(run_id=version.run_id, artifact_path="evaluation.json")).read_text()
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("model")
    parser.add_argument("alias")
    parser.add_argument("--tolerance", type=float, default=1e-6)
    arguments = parser.parse_args()
    ours = json.loads(arguments.file.read_text())
    differing = differences(ours, registered(arguments.model, arguments.alias), arguments.tolerance)
    print(
        "\n".join(differing)
        if differing
        else f"all {len(list(figures(ours)))} figures agree to {arguments.tolerance:g}"
    )
    sys.exit(bool(differing))


if __name__ == "__main__":
    main()
