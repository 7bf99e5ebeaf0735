"""Ctrl-C reaches the processes of a program, too: one that is just being started shows no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

IMAGES = 300  # more than one process reads
# what ends the whole group, once, from within a process that is being started
INTERRUPT = """
import os, signal, sys

def interrupt():
    try:
        os.close(os.open("interrupted", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    os.killpg(0, signal.SIGINT)
"""
# the program itself says that it was stopped, as `capnet` does
RUN = """
import runpy, sys

try:
    runpy.run_path(sys.argv[1], run_name="__main__")
except KeyboardInterrupt:
    print("stopped")
"""
LOADER = """
from multiprocessing import util
from pathlib import Path

import torch

from capnet.config import Tte
from capnet.data.images.loader import chunked, load_batches
from capnet.data.images.transform import Item, Transform
from capnet.runtime import Machine

started = util._close_stdin
util._close_stdin = lambda: (interrupt(), started())  # one of the first things that a forked process does
items = [Item(f"{number}.png") for number in range(300)]
transform = Transform(32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bicubic", tte=Tte(views=1))
machine = Machine(torch.device("cpu"), bf16=False, workers=2)
list(load_batches(chunked(items, 10), Path("images"), transform, machine, 1, len(items)))
"""
FILES = """
from pathlib import Path

from capnet.data.checks.files import open_image_files

if __name__ == "__main__":
    open_image_files([f"{number}.png" for number in range(300)], Path("images"), full=True, dhashes=False, processes=2)
else:
    interrupt()  # a process that is being started imports this file
"""
# batches are larger than a pipe, and nobody reads the rest of them
FULL = """
import time
from pathlib import Path

import torch
from torch.utils.data import _utils

from capnet.config import Tte
from capnet.data.images.loader import chunked, load_batches
from capnet.data.images.transform import Item, Transform
from capnet.runtime import Machine

_utils.MP_STATUS_CHECK_INTERVAL = 300  # seconds that torch waits for a worker's end
items = [Item(f"{number}.png") for number in range(300)]
transform = Transform(256, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bicubic", tte=Tte(views=1))
machine = Machine(torch.device("cpu"), bf16=False, workers=2)
for batch in load_batches(chunked(items, 10), Path("images"), transform, machine, 1, len(items)):
    time.sleep(3)
    interrupt()
    time.sleep(60)
"""


@pytest.mark.parametrize("program", [LOADER, FILES, FULL], ids=["batches", "files", "full pipes"])
def test_a_process_that_reads_images_shows_nothing_at_ctrl_c(tmp_path: Path, program: str) -> None:
    (tmp_path / "images").mkdir()
    for number in range(IMAGES):
        Image.new("RGB", (40, 40)).save(tmp_path / "images" / f"{number}.png")
    script = tmp_path / "script.py"
    script.write_text(INTERRUPT + program)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", RUN, str(script)]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        start_new_session=True,
        check=False,
        timeout=120,
    )
    assert (tmp_path / "interrupted").exists()
    assert done.stdout == "stopped\n", done.stdout + done.stderr
    assert done.stderr == ""
