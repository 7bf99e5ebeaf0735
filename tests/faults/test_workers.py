"""Processes that decode images: one of them is killed, or the memory that processes share is small; a part of the long
run, and as root.
"""

from __future__ import annotations

import ctypes
import os
import random
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from e2e.test_reruns import hashes
from faults.command import begin, end, of_session, output_of, survivors
from faults.test_stage_kills import leftovers
from faults.test_stages import forget

pytestmark = pytest.mark.slow

KILLS = 10  # of each command
PREDICT = ("predict", "--model", "outputs", "--input", "new", "--out", "labels/scores.parquet")
COMMANDS = {"train": ("train",), "predict": PREDICT}
RESULTS = {"train": "outputs", "predict": "labels"}
# torch raises the fault in whatever the main thread is at; an import of its own logs it, and then it is raised again
TORCHS_LOG = re.compile(r"^W\d{4} [\d:.]+ \d+ .*/torch/\S+\] .*$", re.MULTILINE)
NEW_MOUNTS = 0x00020000  # CLONE_NEWNS


def small_shared_memory(size: str) -> None:
    """This process alone sees a small /dev/shm."""
    assert ctypes.CDLL(None).unshare(NEW_MOUNTS) == 0
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", "/dev/shm"], check=True)


@pytest.fixture(params=COMMANDS)
def command(request: pytest.FixtureRequest, tiny_workspace: Path) -> str:
    """The name of one whose results are there."""
    forget(tiny_workspace)
    assert end(begin(tiny_workspace, *COMMANDS[request.param])) == 0, output_of(tiny_workspace)
    return str(request.param)


def test_a_worker_that_is_killed_ends_the_command_with_a_reason(tiny_workspace: Path, command: str) -> None:
    results, generator, failed = tiny_workspace / RESULTS[command], random.Random(command), 0
    before = hashes(results)
    for _ in range(KILLS):
        forget(tiny_workspace)
        if command == "predict":
            shutil.rmtree(results)
        child = begin(tiny_workspace, *COMMANDS[command])
        while not (workers := [number for number, _ in of_session(child) if number != child]):
            assert os.waitpid(child, os.WNOHANG) == (0, 0), "no process decoded images"
            time.sleep(0.002)
        time.sleep(generator.uniform(0, 0.1))
        os.kill(generator.choice(workers), signal.SIGKILL)
        code, text = end(child), output_of(tiny_workspace)
        assert code in (0, 1), text
        assert "Traceback" not in TORCHS_LOG.sub("", text), text
        if code:
            failed += 1
            assert "a process that decodes images was ended" in text
            assert "where: " in text
            assert "to do: " in text
            assert command == "predict" or hashes(results) == before
        assert not survivors(child)
        assert end(begin(tiny_workspace, *COMMANDS[command])) == 0, output_of(tiny_workspace)
        assert hashes(results) == before
        assert not leftovers(tiny_workspace)
    print(f"{command}: {failed} of {KILLS} ended")
    assert failed


@pytest.mark.parametrize("size", ["64m", "64k"])
def test_pixels_need_no_shared_memory(tiny_workspace: Path, command: str, size: str) -> None:
    results = tiny_workspace / RESULTS[command]
    before = hashes(results)
    forget(tiny_workspace)
    shutil.rmtree(results / "model" if command == "train" else results)
    child = begin(tiny_workspace, *COMMANDS[command], limit=lambda: small_shared_memory(size))
    assert end(child) == 0, output_of(tiny_workspace)
    assert hashes(results) == before
