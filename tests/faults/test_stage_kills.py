"""Stages and predict killed at random moments: what is there in between is whole, the next run ends with the same
bytes, and no process, lock or temporary file is left.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from e2e.test_reruns import hashes
from faults.command import begin, end, output_of, survivors
from faults.test_stages import OUTPUTS, forget

pytestmark = pytest.mark.slow

IS_LONG = os.environ.get("FAULTS") == "all"
KILLS = 32 if IS_LONG else 1  # of each stage
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGINT)
MODELS = ("models:/capnet@challenger", "outputs") if IS_LONG else ("models:/capnet@challenger",)
FORMATS = ("parquet", "csv", "json")


def killed(folder: Path, number: signal.Signals, after: float, *arguments: str) -> int:
    """Start a command and end it after some seconds, as Ctrl-C does with its children too; returns the exit code.

    The command then has no traceback, and nothing that it started runs on.
    """
    child = begin(folder, *arguments)
    time.sleep(after)
    (os.killpg if number == signal.SIGINT else os.kill)(child, number)
    code = end(child)
    assert code in (0, 1, 130, -number), (code, output_of(folder))
    assert "Traceback" not in output_of(folder), output_of(folder)
    assert not survivors(child)
    assert not [name for name in os.listdir("/dev/shm") if f"_{child}_" in name]
    return code


def seconds(folder: Path, *arguments: str) -> float:
    """What a command takes that is not killed."""
    started = time.monotonic()
    assert end(begin(folder, *arguments)) == 0, output_of(folder)
    return time.monotonic() - started


def leftovers(folder: Path) -> list[str]:
    """Temporary files in the folder, in the state below it, and where the system keeps them."""
    hidden = [path for path in folder.rglob("*") if path.name.startswith(".") or path.suffix == ".tmp"]
    ours = [path for path in hidden if path.name not in (".capnet", ".gitignore")]
    return sorted(map(str, ours)) + sorted(os.listdir(tempfile.gettempdir()))


def again(folder: Path, before: dict[str, str], results: Callable[[], dict[str, str]], *arguments: str) -> None:
    """The command once more ends well, with the bytes of an unkilled run, and nothing is left over."""
    assert end(begin(folder, *arguments)) == 0, output_of(folder)
    assert results() == before
    assert not leftovers(folder)


@pytest.mark.parametrize("stage", OUTPUTS)
def test_a_stage_killed_at_random_moments(tiny_workspace: Path, stage: str) -> None:
    generator, output = random.Random(stage), tiny_workspace / "outputs" / OUTPUTS[stage]
    before, whole, names = hashes(tiny_workspace / "outputs"), hashes(output), set(os.listdir(tiny_workspace))
    forget(tiny_workspace)
    took = seconds(tiny_workspace, stage)
    for number in range(KILLS):
        forget(tiny_workspace)
        if number % 2:
            shutil.rmtree(output)
        killed(tiny_workspace, SIGNALS[number // 2 % 4], generator.uniform(0, took), stage)
        assert hashes(output) in ({}, whole), number
        again(tiny_workspace, before, lambda: hashes(tiny_workspace / "outputs"), stage)
        assert set(os.listdir(tiny_workspace)) == names


@pytest.mark.parametrize("model", MODELS)
def test_predict_killed_at_random_moments(tiny_workspace: Path, model: str) -> None:
    generator, out = random.Random(model), tiny_workspace / "labels"
    for kind in FORMATS if IS_LONG else FORMATS[:1]:
        command = ("predict", "--model", model, "--input", "new", "--out", f"labels/scores.{kind}")
        took, before = seconds(tiny_workspace, *command), hashes(out)
        for number in range(-(-KILLS // 3)):
            if number % 2:
                shutil.rmtree(out)
            killed(tiny_workspace, SIGNALS[number // 2 % 4], generator.uniform(0, took), *command)
            assert not out.is_dir() or hashes(out).get(f"scores.{kind}") in (None, before[f"scores.{kind}"])
            again(tiny_workspace, before, lambda: hashes(out), *command)
        shutil.rmtree(out)
