"""`capnet register` killed at random moments, by every signal that ends a program: the next call ends well, with one
version, and nothing is left over.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from faults.command import begin, end, said
from unit.conftest import _make as make_outputs
from unit.stores import empty_database as empty_database

pytestmark = pytest.mark.slow

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
KILLS = 50 if os.environ.get("FAULTS") == "all" else 2  # of each signal
LEFT = {"params.yaml", "outputs", "mlflow.db", "mlruns"}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the stages before register write."""
    import mlflow.pyfunc  # noqa: F401
    import torch  # noqa: F401

    import capnet.registry.register  # noqa: F401  imported here, so that a child begins at once

    folder = tmp_path_factory.mktemp("outputs") / "outputs"
    make_outputs(folder)
    return folder


@pytest.fixture
def place(outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "place"
    folder.mkdir()
    shutil.copytree(outputs, folder / "outputs")
    (folder / "params.yaml").write_text("data: {root: data}\n")
    monkeypatch.setenv("CAPNET_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return folder


def versions(folder: Path) -> list[tuple[Any, ...]]:
    """Version and status of every one, and the aliases; the file is sound."""
    with closing(sqlite3.connect(folder / "mlflow.db")) as connection:
        assert connection.execute("pragma integrity_check").fetchall() == [("ok",)]
        found = connection.execute("select version, status from model_versions where name = 'capnet'").fetchall()
        return found + connection.execute("select alias, version from registered_model_aliases").fetchall()


def check(folder: Path) -> None:
    """One more call ends well."""
    code = end(begin(folder, "register"))
    assert code == 0, said(folder)
    assert "Traceback" not in said(folder)
    ready = [item for item in versions(folder) if item[1] == "READY"]
    assert len(ready) == 1
    assert ("challenger", ready[0][0]) in versions(folder)
    assert {path.name for path in folder.iterdir()} <= LEFT | {"mlflow.db.unfinished"}
    assert (folder / "outputs" / "registration.json").is_file()
    assert not list((folder / "outputs").glob(".*"))


@pytest.fixture(scope="module")
def duration(outputs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[bool, float]:
    """Seconds that a call takes, without and with a store."""
    folder = tmp_path_factory.mktemp("timed") / "place"
    folder.mkdir()
    shutil.copytree(outputs, folder / "outputs")
    (folder / "params.yaml").write_text("data: {root: data}\n")
    took = {}
    for has_store in (False, True):
        if has_store:
            shutil.rmtree(folder / "mlruns")
            shutil.rmtree(folder / "outputs")
            shutil.copytree(outputs, folder / "outputs")
        started = time.monotonic()
        assert end(begin(folder, "register")) == 0, said(folder)
        took[has_store] = time.monotonic() - started
    return took


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: signal.Signals(number).name)
@pytest.mark.parametrize("has_store", [False, True], ids=["no store", "a store"])
def test_register_killed_at_random_moments(
    place: Path,
    duration: dict[bool, float],
    empty_database: Path,
    number: int,
    has_store: bool,
) -> None:
    generator = random.Random(number + 100 * has_store)
    for kill in range(KILLS if has_store else max(1, KILLS // 5)):
        for path in place.glob("mlflow.db*"):
            path.unlink()
        shutil.rmtree(place / "mlruns", ignore_errors=True)
        (place / "outputs" / "registration.json").unlink(missing_ok=True)
        if has_store:
            shutil.copy(empty_database, place / "mlflow.db")
        child = begin(place, "register")
        time.sleep(generator.uniform(0, duration[has_store]))
        os.kill(child, number)
        code = end(child)
        assert code in (0, 1, 130, -number), (kill, code, said(place))
        assert "Traceback" not in said(place), (kill, said(place))
        check(place)
