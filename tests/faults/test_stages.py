"""Stages on a machine that fails them: files that may not grow, little memory, something else in the place of a folder.
Nothing half-written or left over is found afterwards.
"""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from e2e.test_reruns import hashes
from faults.command import begin, end, said

pytestmark = pytest.mark.slow

IS_LONG = os.environ.get("FAULTS") == "all"
STAGES = ("ingest", "split", "validate", "graph", "train", "evaluate")
TRIED = STAGES if IS_LONG else ("ingest", "graph")
SIZES = (2000, 10_000, 30_000, 300_000, 1_100_000, 3_000_000) if IS_LONG else (2000, 1_100_000)
OUTPUTS = {
    "ingest": "manifest",
    "split": "split",
    "validate": "validation",
    "graph": "graph",
    "train": "model",
    "evaluate": "evaluation",
}


def forget(place: Path) -> None:
    """Nothing is known of an earlier training; the backbone that was put together stays."""
    for name in ("train", "features"):
        shutil.rmtree(place / ".capnet" / name, ignore_errors=True)


def fails_well(place: Path, stage: str, limit: Callable[[], None] | None, before: dict[str, str]) -> bool:
    """Run a stage that may fail: then with a message, and its old output is there. Says whether it failed."""
    forget(place)
    code = end(begin(place, stage, limit=limit))
    text = said(place)
    assert "Traceback" not in text, text
    if code:
        assert "capnet: " in text
        assert "where: " in text
        assert "to do: " in text
    assert hashes(place / "outputs") == before, (stage, code, text)
    assert not [path for path in (place / "outputs").rglob(".*") if path.name != ".gitignore"], text
    return code != 0


@pytest.mark.parametrize("stage", TRIED)
def test_files_that_may_not_grow(place: Path, stage: str) -> None:
    before, failed = hashes(place / "outputs"), 0
    for size in SIZES:
        failed += fails_well(
            place, stage, lambda size=size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)), before
        )
    assert failed
    assert not fails_well(place, stage, None, before)


@pytest.mark.parametrize("stage", TRIED)
def test_outputs_and_state_in_whose_place_is_something_else(place: Path, stage: str) -> None:
    before = hashes(place / "outputs")
    shutil.move(place / ".capnet", place / "kept")
    (place / ".capnet").write_text("mine")
    fails_well(place, stage, None, before)
    assert (place / ".capnet").read_text() == "mine"
    (place / ".capnet").unlink()
    shutil.move(place / "kept", place / ".capnet")
    shutil.move(place / "outputs", place / "kept")
    (place / "outputs").write_text("mine")
    output = place / "outputs" / OUTPUTS[stage]
    inputs = [f"--input={name}={place / 'kept' / folder}" for name, folder in _inputs(stage)]
    code = end(begin(place, stage, *inputs, f"--output={OUTPUTS[stage]}={output}"))
    assert code == 1, said(place)
    assert "no output can be written here" in said(place)
    assert (place / "outputs").read_text() == "mine"


def _inputs(stage: str) -> list[tuple[str, str]]:
    from capnet.stages import STAGES as TABLE

    return [(name, Path(path).name) for name, path in TABLE[stage].inputs.items() if name != "data"]


@pytest.mark.parametrize("stage", TRIED)
def test_too_little_memory(place: Path, stage: str) -> None:
    before = hashes(place / "outputs")
    with open("/proc/self/statm") as file:
        has = int(file.read().split()[0]) * resource.getpagesize()
    for more in (30, 100, 250) if IS_LONG else (60,):
        limit = has + more * 10**6
        fails_well(place, stage, lambda limit=limit: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)), before)
