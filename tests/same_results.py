"""Whether two runs of one job, started by different means, gave the same results."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from capnet.stages import STAGES

EQUAL_BYTES = ("split/split.parquet", "split/classes.json", "graph/graph.safetensors")
METRICS = "evaluation/evaluation.json"
# registration.json names the version in its own store
COMPARED = ("manifest", "split", "validation", "graph", "model", "evaluation")


def of_shell(outputs: Path) -> dict[str, Path]:
    """The folders that `dvc repro` or the commands wrote: ``outputs``/NAME."""
    return {name: outputs / name for name in COMPARED}


def of_pipeline(run: Path) -> dict[str, Path]:
    """The folders that one run of the training pipeline wrote for the first seed: ``run``/STAGE/NAME."""
    return {name: run / stage.name / name for stage in STAGES.values() for name in stage.outputs if name in COMPARED}


def the_run(runs: Path, pipeline: str = "training") -> Path:
    """The folder of the only run of a pipeline below ``runs``."""
    result = sorted(runs.glob(f"capnet-{pipeline}-*"))
    assert len(result) == 1, f"runs of {pipeline}: {[path.name for path in result]}"
    return result[0]


def assert_same_results(expected: Mapping[str, Path], result: Mapping[str, Path]) -> list[str]:
    """Split and graph are equal byte for byte, metrics to 1e-6; returns the other files that differ, so that a caller
    may demand none.
    """
    left, right = contents(expected), contents(result)
    missing = {*EQUAL_BYTES, METRICS} - left.keys()
    assert not missing, f"the expected run wrote no {sorted(missing)}"
    assert sorted(right) == sorted(left), "other files were written"
    unequal = [name for name in left if left[name] != right[name]]
    assert not set(EQUAL_BYTES) & set(unequal), f"these differ: {unequal}"
    assert_same_metrics(json.loads(left[METRICS]), json.loads(right[METRICS]))
    return unequal


def assert_same_metrics(expected: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    """Nested metrics have the same names, words and, to 1e-6, numbers."""
    left, right = dict(leaves(expected)), dict(leaves(result))
    counted = [name for name, value in left.items() if isinstance(value, int | float)]
    assert {name: value for name, value in right.items() if name not in counted} == {
        name: value for name, value in left.items() if name not in counted
    }
    assert {name: right[name] for name in counted} == pytest.approx(
        {name: left[name] for name in counted}, abs=1e-6, rel=0
    )


def contents(folders: Mapping[str, Path]) -> dict[str, bytes]:
    """The bytes of every file, by NAME/path."""
    return {
        f"{name}/{path.relative_to(folder).as_posix()}": path.read_bytes()
        for name, folder in sorted(folders.items())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every word and number of nested metrics, by its place."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from leaves(item, f"{key}/{name}")
    elif isinstance(value, list):
        yield f"{key}/length", len(value)
        for number, item in enumerate(value):
            yield from leaves(item, f"{key}/{number}")
    else:
        yield key, value
