"""The feature store while stages of other projects, or other accounts, use the same state folder."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from capnet.data.images.store import FeatureStore, trim
from capnet.errors import CapnetError
from capnet.state import state_dir

FEATURES = np.ones((1, 4), dtype=np.float16)  # [view, pooled]


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPNET_STATE", str(tmp_path / "state"))


def _write_and_remove(folder: Path) -> None:
    while True:
        folder.mkdir(exist_ok=True)
        for number in range(50):
            (folder / f".{number:032x}.arrow.host.1.tmp").write_bytes(b"x")
        for number in range(50):
            (folder / f".{number:032x}.arrow.host.1.tmp").rename(folder / f"{number:032x}.arrow")
        shutil.rmtree(folder)


@pytest.mark.slow
def test_trimming_goes_on_while_another_process_renames_and_removes_files() -> None:
    folder = state_dir("features") / "of another project"
    process = multiprocessing.get_context("fork").Process(target=_write_and_remove, args=(folder,), daemon=True)
    process.start()
    try:
        end = time.monotonic() + 2
        while time.monotonic() < end:
            trim(10**9)
    finally:
        process.kill()
        process.join()


def test_features_that_another_account_wrote_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the owner of a file, or who may write it, sets its time."""
    FeatureStore("key", 1).fill(["a"], [FEATURES])

    def refuse(path: Path) -> None:
        raise PermissionError(1, "Operation not permitted", str(path))

    monkeypatch.setattr(os, "utime", refuse)
    assert FeatureStore("key", 1).read(["a"])[:].tolist() == [FEATURES.tolist()]


def test_features_that_no_disk_has_room_for_are_refused_before_work() -> None:
    asked: list[int] = []

    def features() -> Iterator[np.ndarray]:
        for number in range(3):
            asked.append(number)
            yield np.broadcast_to(np.float16(1), (1, 2**48))  # takes no memory

    store = FeatureStore("key", 1)
    with pytest.raises(CapnetError) as refused:
        store.fill([f"{number:064x}" for number in range(3)], features())
    assert asked == [0]
    assert str(refused.value).startswith("1688849.9 GB are needed, the disk has ")
    assert "CAPNET_STATE" in str(refused.value)
    assert not list(store.folder.iterdir())


def test_files_that_are_none_of_the_stores_stay() -> None:
    """``CAPNET_STATE`` may name a folder that has a folder of features already."""
    folder = state_dir("features")
    names = ("photos.npy", "run/photos.csv", "run/data-00000-of-00001.arrow", "0.arrow", "01.safetensors", ".copy.tmp")
    theirs = [folder / name for name in names]
    for path in theirs:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(1000))
        os.utime(path, (0, 0))
    FeatureStore("key", 1).fill(["a"], [FEATURES])
    trim(0)
    assert all(path.exists() for path in theirs)
    assert FeatureStore("key", 1).missing(["a"])
