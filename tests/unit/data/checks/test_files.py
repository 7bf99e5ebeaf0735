"""Every file is looked at once, in other processes, and a decoder that dies takes one picture with it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from PIL import Image, ImageOps
from unit.data.hostile import animated_gif, arrow, bomb, truncated_jpeg, turned

from capnet import runtime
from capnet.contracts import sha256_file
from capnet.data.checks.files import open_image_file, open_image_files
from capnet.data.checks.processes import FEW, in_processes
from capnet.data.images.near_duplicates import NO_DHASH
from capnet.errors import CapnetError


@pytest.fixture
def hostile_folder(tmp_path: Path) -> Path:
    bomb(tmp_path / "bomb.png", 60_000)
    truncated_jpeg(tmp_path / "cut.jpg")
    (tmp_path / "zero.jpg").touch()
    animated_gif(tmp_path / "moving.gif")
    turned(tmp_path / "turned.jpg", 6, "JPEG")
    arrow().save(tmp_path / "Füchse im Schnee 狐.png")
    return tmp_path


REASONS = {"bomb.png": "178,956,970 pixels", "zero.jpg": "empty file", "gone.jpg": "missing"}


@pytest.mark.slow
@pytest.mark.parametrize("full", [False, True])
def test_hostile_files_are_faults_and_the_rest_is_read(hostile_folder: Path, full: bool) -> None:
    names = [*sorted(path.name for path in hostile_folder.iterdir()), "gone.jpg"]
    seen = dict(zip(names, open_image_files(names, hostile_folder, full, dhashes=False), strict=True))
    reasons = {**REASONS, **({"cut.jpg": "truncated"} if full else {})}
    for name, one in seen.items():
        assert reasons.get(name, "") in one.fault
        assert bool(one.fault) == (name in reasons)
        assert one.sha256 == (sha256_file(hostile_folder / name) if full and not one.fault else "")
        assert not one.dhash
    assert (seen["turned.jpg"].width, seen["turned.jpg"].height) == (40, 60), (
        "the size as it is stored, as ingest has it"
    )
    assert (seen["moving.gif"].width, seen["moving.gif"].height) == (30, 20)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_that_exif_data_turns_is_a_near_duplicate_of_its_upright_copy(tmp_path: Path, orientation: int) -> None:
    turned(tmp_path / "turned.png", orientation, "PNG")
    with Image.open(tmp_path / "turned.png") as image:
        ImageOps.exif_transpose(image).save(tmp_path / "upright.png", exif=b"")
    for full in (False, True):
        names = ("turned.png", "upright.png")
        one, other = (open_image_file(name, str(tmp_path), full, dhashes=True).dhash for name in names)
        assert one == other != NO_DHASH


def test_a_pool_and_this_process_see_the_same(tmp_path: Path) -> None:
    names = []
    for number in range(FEW + 10):
        arrow((60 + number % 7, 40)).save(tmp_path / f"{number}.png")
        names.append(f"{number}.png")
    pooled = open_image_files(names, tmp_path, full=True, dhashes=True, processes=2)
    assert pooled == [open_image_file(name, str(tmp_path), full=True, dhashes=True) for name in names]
    assert [one.width for one in pooled] == [60 + number % 7 for number in range(FEW + 10)]


def process_id(item: int) -> int:
    time.sleep(0.002)
    return os.getpid()


def die_at(item: int, deadly: tuple[int, ...]) -> int:
    if item in deadly:
        os._exit(1)
    return item * 2


@pytest.mark.slow
def test_the_work_is_shared_out() -> None:
    used = in_processes(process_id, range(FEW * 3), 2, "counting", -1)
    assert len(set(used)) == 2
    assert os.getpid() not in used
    assert set(in_processes(process_id, range(10), 2, "counting", -1)) == {os.getpid()}
    assert set(in_processes(process_id, range(FEW * 2), 1, "counting", -1)) == {os.getpid()}


@pytest.mark.slow
def test_a_container_with_one_core_gets_no_processes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    monkeypatch.setattr(runtime, "CPU_LIMIT", tmp_path / "cpu.max")
    assert set(in_processes(process_id, range(FEW * 2), 0, "counting", -1)) == {os.getpid()}


@pytest.mark.slow
def test_a_decoder_that_dies_takes_one_picture_with_it() -> None:
    deadly = (3, 4, 200, FEW + 43)
    result = in_processes(partial(die_at, deadly=deadly), range(FEW + 44), 2, "dying", -1)
    assert result == [-1 if item in deadly else item * 2 for item in range(FEW + 44)]


NO_START = """
import multiprocessing.spawn
from capnet.data.checks.processes import FEW, in_processes
from capnet.errors import CapnetError

if __name__ == "__main__":
    multiprocessing.spawn._python_exe = b"/bin/false"
    for _ in range(40):
        try:
            in_processes(abs, range(FEW * 2), 2, "failing", -1)
        except CapnetError as error:
            assert "validate.processes: 1" in str(error)
            print("named")
"""


@pytest.mark.slow
def test_no_process_at_all_is_said(tmp_path: Path) -> None:
    """Worker processes that cannot even start, as where the interpreter is not allowed to start itself. Python notices
    it at many places, by chance: the process that watches over semaphores is none, a pipe is closed already.
    """
    (tmp_path / "script.py").write_text(NO_START)
    run = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout.count("named") == 40


@pytest.mark.parametrize("fault", [ValueError("bad value(s) in fds_to_keep"), BrokenPipeError()])
def test_a_fault_while_a_process_starts_is_said(monkeypatch: pytest.MonkeyPatch, fault: Exception) -> None:
    """The first is Python's own word for a pipe that another thread closed meanwhile, once in a thousand starts."""

    def fails(*_: object) -> int:
        raise fault

    monkeypatch.setattr("multiprocessing.util.spawnv_passfds", fails)
    with pytest.raises(CapnetError, match=r"validate\.processes: 1"):
        in_processes(process_id, range(FEW * 2), 2, "failing", -1)
