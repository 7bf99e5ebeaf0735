"""Ctrl-C while the command line is imported, which a run of DVC does for each stage, and while Python ends."""

from __future__ import annotations

import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

IMPORTING = """
import sys
from importlib import import_module

interrupted, script = sys.argv[1:]
sys.argv[1:] = ["preset", "own"]

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == interrupted:
            sys.meta_path.remove(self)
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupt())
module, _, function = script.partition(":")
getattr(import_module(module), function)()
"""
AGAIN = "import atexit, os\natexit.register(os.kill, os.getpid(), 2)\n"
WAITS = "import threading\nthreading.Thread(target=threading.Event().wait).start()\n"
STOPPED = "\ncapnet: stopped; the same command again goes on\n"


@pytest.mark.parametrize("module", ["click", "capnet.contracts", "capnet.redaction", "capnet.config"])
def test_an_interrupted_import_ends_with_one_line(repository: Path, module: str) -> None:
    script = tomllib.loads((repository / "pyproject.toml").read_text())["project"]["scripts"]["capnet"]
    command = [sys.executable, "-c", IMPORTING, module, script]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == STOPPED
    command[2] = AGAIN + IMPORTING
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", STOPPED)


@pytest.mark.slow
def test_a_thread_that_nobody_ends_does_not_keep_an_interrupted_command() -> None:
    command = [sys.executable, "-c", WAITS + IMPORTING, "capnet.config", "capnet.__main__:entry"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", STOPPED)
