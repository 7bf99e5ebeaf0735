"""A process that the system ends, because a file that it maps cannot be read any more, says where it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SHORTENED = """
import mmap, os, sys

def read_shortened():
    with open(sys.argv.pop(), "r+b") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        file.truncate(0)
        mapped[:1]
"""
COMMAND = """
class Hook:
    def find_spec(self, name, path=None, target=None):
        if name == "capnet.commands.preset":
            read_shortened()

from capnet.__main__ import entry
sys.meta_path.insert(0, Hook())
sys.argv[1:] = ["preset", "own", sys.argv[-1]]
entry()
"""
TASK = """
from capnet.tasks import task
with task({}):
    read_shortened()
"""
PRESET = "import sys; from capnet.__main__ import entry; sys.argv[1:] = ['preset', 'own']; entry()"


@pytest.mark.parametrize("code", [COMMAND, TASK], ids=["command", "task"])
def test_a_mapped_file_that_is_shortened_ends_no_process_in_silence(code: str, tmp_path: Path) -> None:
    file = tmp_path / "segment.arrow"
    file.write_bytes(bytes(10_000))
    command = [sys.executable, "-c", SHORTENED + code, str(file)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONFAULTHANDLER"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGBUS, "")
    assert "Bus error" in done.stderr
    assert "in read_shortened" in done.stderr


def test_a_command_without_a_standard_error_runs() -> None:
    shell = ["sh", "-c", '"$0" -c "$1" 2>&-', sys.executable, PRESET]
    done = subprocess.run(shell, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "backbone:" in done.stdout
