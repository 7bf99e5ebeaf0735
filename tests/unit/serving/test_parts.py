"""The folder of parts: several processes that write one output again and again, as jobs that overlap."""

from __future__ import annotations

import errno
import multiprocessing
import time
from collections import Counter
from multiprocessing.queues import Queue
from pathlib import Path

import pytest

from capnet.errors import CapnetError
from capnet.machine_faults import machine_faults
from capnet.serving.parts import parts_of

PARTS = 20
PROCESSES = 3


def _write(out: Path, end: float, results: Queue[Counter[str]]) -> None:
    seen = Counter[str]()
    while time.monotonic() < end:
        try:
            with parts_of(out) as folder:
                paths = [folder / f"{number:012}.parquet" for number in range(PARTS)]
                for path in paths:
                    path.write_bytes(b"x")
                seen["lost parts"] += sum(not path.exists() for path in paths)
            seen["done"] += 1
        except CapnetError as error:
            seen["refused"] += "another process" in str(error)
        except Exception as error:  # any other is one that the user would see
            seen[type(error).__name__] += 1
    results.put(+seen)


@pytest.mark.slow
def test_processes_that_overlap_take_nothing_from_each_other(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    results: Queue[Counter[str]] = context.Queue()
    arguments = (tmp_path / "out.csv", time.monotonic() + 4, results)
    processes = [context.Process(target=_write, args=arguments, daemon=True) for _ in range(PROCESSES)]
    for process in processes:
        process.start()
    seen = sum((results.get(timeout=60) for _ in processes), Counter[str]())
    for process in processes:
        process.join(60)
    assert set(seen) == {"done", "refused"}
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / ".out.csv.parts").write_text("x")
    with pytest.raises(CapnetError) as refusal, machine_faults(), parts_of(tmp_path / "out.csv"):
        pass
    assert refusal.value.problems[0].where == f"{tmp_path}/.out.csv.parts/lock"


def test_a_full_disk_is_named_by_the_output(tmp_path: Path) -> None:
    with pytest.raises(CapnetError) as refusal, machine_faults(), parts_of(tmp_path / "out.csv"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert refusal.value.problems[0].where == f"{tmp_path}/out.csv"
