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
from faults.command import begin, end, output_of

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


def forget(workspace: Path) -> None:
    """Nothing is known of an earlier training; the backbone that was put together stays."""
    for name in ("train", "features"):
        shutil.rmtree(workspace / ".capnet" / name, ignore_errors=True)


def fails_well(workspace: Path, stage: str, limit: Callable[[], None] | None, before: dict[str, str]) -> bool:
    """Run a stage that may fail: then with a message, and its old output is there. Says whether it failed."""
    forget(workspace)
    code = end(begin(workspace, stage, limit=limit))
    text = output_of(workspace)
    assert "Traceback" not in text, text
    if code:
        assert "capnet: " in text
        assert "where: " in text
        assert "to do: " in text
    assert hashes(workspace / "outputs") == before, (stage, code, text)
    assert not [path for path in (workspace / "outputs").rglob(".*") if path.name != ".gitignore"], text
    return code != 0


@pytest.mark.parametrize("stage", TRIED)
def test_files_that_may_not_grow(workspace: Path, stage: str) -> None:
    before, failed = hashes(workspace / "outputs"), 0
    for size in SIZES:
        failed += fails_well(
            workspace, stage, lambda size=size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)), before
        )
    assert failed
    assert not fails_well(workspace, stage, None, before)


@pytest.mark.parametrize("stage", TRIED)
def test_outputs_and_state_in_whose_place_is_something_else(workspace: Path, stage: str) -> None:
    before = hashes(workspace / "outputs")
    shutil.move(workspace / ".capnet", workspace / "kept")
    (workspace / ".capnet").write_text("mine")
    fails_well(workspace, stage, None, before)
    assert (workspace / ".capnet").read_text() == "mine"
    (workspace / ".capnet").unlink()
    shutil.move(workspace / "kept", workspace / ".capnet")
    shutil.move(workspace / "outputs", workspace / "kept")
    (workspace / "outputs").write_text("mine")
    output = workspace / "outputs" / OUTPUTS[stage]
    inputs = [f"--input={name}={workspace / 'kept' / folder}" for name, folder in _inputs(stage)]
    code = end(begin(workspace, stage, *inputs, f"--output={OUTPUTS[stage]}={output}"))
    assert code == 1, output_of(workspace)
    assert "no output can be written here" in output_of(workspace)
    assert (workspace / "outputs").read_text() == "mine"


def _inputs(stage: str) -> list[tuple[str, str]]:
    from capnet.stages import STAGES as TABLE

    return [(name, Path(path).name) for name, path in TABLE[stage].inputs.items() if name != "data"]


@pytest.mark.parametrize("stage", TRIED)
def test_too_little_memory(workspace: Path, stage: str) -> None:
    before = hashes(workspace / "outputs")
    with open("/proc/self/statm") as file:
        has = int(file.read().split()[0]) * resource.getpagesize()
    for more in (30, 100, 250) if IS_LONG else (60,):
        limit = has + more * 10**6
        fails_well(workspace, stage, lambda limit=limit: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)), before)
