"""`capnet register` and `capnet promote` killed at random moments, by every signal that ends a program: the next call
ends well, with one version, with an alias that the history agrees with, and nothing is left over.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from faults.command import begin, end, output_of, survivors
from faults.test_stage_kills import SIGNALS as MOST_SIGNALS
from faults.test_stage_kills import killed, leftovers, seconds
from unit.conftest import _make as make_outputs
from unit.conftest import outputs_maker as outputs_maker
from unit.stores import empty_database as empty_database
from unit.stores import three_versions as three_versions

pytestmark = pytest.mark.slow

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
KILLS = 50 if os.environ.get("FAULTS") == "all" else 2  # of each signal
MOVES = 24 if os.environ.get("FAULTS") == "all" else 1  # kills of each command that moves the alias
PROMOTE = ("promote", "--version", "3", "--yes")
COPY = ("promote", "--version", "1", "--to", "production", "--yes", "--reason", "the first one there")
ROLLBACK = ("promote", "--rollback")
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
def workspace(outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder, temporary = tmp_path / "workspace", tmp_path / "temporary"
    folder.mkdir()
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    shutil.copytree(outputs, folder / "outputs")
    (folder / "params.yaml").write_text("data: {root: data}\n")
    monkeypatch.setenv("CAPNET_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return folder


def versions(folder: Path) -> list[tuple[Any, ...]]:
    """Version and status of every one, and the aliases; the file is sound."""
    with closing(sqlite3.connect(folder / "mlflow.db")) as connection:
        assert connection.execute("pragma integrity_check").fetchall() == [("ok",)]
        result = connection.execute("select version, status from model_versions where name = 'capnet'").fetchall()
        return result + connection.execute("select alias, version from registered_model_aliases").fetchall()


def unused_journal(folder: Path) -> set[str]:
    """The name of a journal that a kill left before it held anything: SQLite keeps it until its next write."""
    journal = folder / "mlflow.db-journal"
    if not journal.exists():
        return set()
    assert not any(journal.read_bytes()[:8])  # the header comes last, so nothing of the store is undone by it
    copied = folder.with_name("copied")
    copied.mkdir()
    for name in ("mlflow.db", journal.name):
        shutil.copy(folder / name, copied / name)
    with closing(sqlite3.connect(copied / "mlflow.db")) as connection:
        connection.execute("create table written (id integer)")
    assert os.listdir(copied) == ["mlflow.db"]
    shutil.rmtree(copied)
    return {journal.name}


def check(folder: Path) -> None:
    """One more call ends well."""
    code = end(begin(folder, "register"))
    assert code == 0, output_of(folder)
    assert "Traceback" not in output_of(folder)
    ready = [item for item in versions(folder) if item[1] == "READY"]
    assert len(ready) == 1
    assert ("challenger", ready[0][0]) in versions(folder)
    assert ("RUNNING",) not in query(folder, "select status from runs")
    assert (1,) not in query(folder, "select status from logged_models"), "none is pending"
    assert set(os.listdir(folder)) - unused_journal(folder) <= LEFT | {"mlflow.db.unfinished"}
    assert (folder / "outputs" / "registration.json").is_file()
    assert not leftovers(folder)


@pytest.fixture(scope="module")
def duration(outputs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[bool, float]:
    """Seconds that a call takes, without and with a store."""
    folder = tmp_path_factory.mktemp("timed") / "workspace"
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
        assert end(begin(folder, "register")) == 0, output_of(folder)
        took[has_store] = time.monotonic() - started
    return took


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: signal.Signals(number).name)
@pytest.mark.parametrize("has_store", [False, True], ids=["no store", "a store"])
def test_register_killed_at_random_moments(
    workspace: Path,
    duration: dict[bool, float],
    empty_database: Path,
    number: int,
    has_store: bool,
) -> None:
    generator = random.Random(number + 100 * has_store)
    for kill in range(KILLS if has_store else max(1, KILLS // 5)):
        for path in workspace.glob("mlflow.db*"):
            path.unlink()
        shutil.rmtree(workspace / "mlruns", ignore_errors=True)
        (workspace / "outputs" / "registration.json").unlink(missing_ok=True)
        if has_store:
            shutil.copy(empty_database, workspace / "mlflow.db")
        child = begin(workspace, "register")
        time.sleep(generator.uniform(0, duration[has_store]))
        os.kill(child, number)
        code = end(child)
        assert code in (0, 1, 130, -number), (kill, code, output_of(workspace))
        assert not survivors(child)
        assert "Traceback" not in output_of(workspace), (kill, output_of(workspace))
        check(workspace)


def test_the_run_of_a_killed_registration_ends_with_the_next_one_of_other_content(
    workspace: Path, empty_database: Path
) -> None:
    shutil.copy(empty_database, workspace / "mlflow.db")
    child = begin(workspace, "register")
    while ("RUNNING",) not in query(workspace, "select status from runs"):
        assert os.waitpid(child, os.WNOHANG) == (0, 0), output_of(workspace)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    assert end(child) == -signal.SIGKILL
    shutil.rmtree(workspace / "outputs")
    make_outputs(workspace / "outputs", mAP=0.6)
    check(workspace)
    assert query(workspace, "select status from runs") == [("FINISHED",), ("KILLED",)]


@pytest.fixture
def champion(imported: None, three_versions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of settings, and a store with three versions, the first of which is the champion."""
    folder, temporary = tmp_path / "workspace", tmp_path / "temporary"
    folder.mkdir()
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setenv("CAPNET_STATE", str(folder / ".capnet"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (folder / "params.yaml").write_text("data: {root: data}\n")
    shutil.copy(three_versions, folder / "mlflow.db")
    succeed(folder, "promote", "--version", "1", "--yes")
    return folder


def succeed(folder: Path, *arguments: str) -> None:
    assert end(begin(folder, *arguments)) == 0, output_of(folder)
    assert not leftovers(folder)


def query(folder: Path, text: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(folder / "mlflow.db")) as connection:
        assert connection.execute("pragma integrity_check").fetchall() == [("ok",)]
        return sorted(connection.execute(text).fetchall())


def moves(folder: Path, name: str) -> list[tuple[str, ...]]:
    """The finished moves of the alias, in order: kind, before, after, verdict, reason."""
    text = f"select key, value from registered_model_tags where key like 'promotion.%' and name = '{name}'"
    events = [json.loads(value) for _, value in query(folder, text)]
    done = sorted((event for event in events if event["done"]), key=lambda event: event["done"])
    return [tuple(event[key] for key in ("kind", "before", "after", "verdict", "reason")) for event in done]


def champions(folder: Path) -> dict[str, int]:
    return dict(query(folder, "select name, version from registered_model_aliases where alias = 'champion'"))


def state(folder: Path) -> tuple[Any, ...]:
    """All that a user sees of versions, their tags, aliases and moves, but for times."""
    return (
        query(folder, "select name, version, status from model_versions"),
        query(folder, "select name, version, key, value from model_version_tags"),
        champions(folder),
        *(moves(folder, name) for name in ("capnet", "production")),
    )


def begin_again(folder: Path, database: Path) -> None:
    for path in folder.glob("mlflow.db*"):
        path.unlink()
    shutil.copy(database, folder / "mlflow.db")


@pytest.mark.parametrize("command", [PROMOTE, COPY], ids=["promote", "copy"])
def test_promote_killed_at_random_moments(champion: Path, tmp_path: Path, command: tuple[str, ...]) -> None:
    database, generator = shutil.copy(champion / "mlflow.db", tmp_path / "before.db"), random.Random(command[-1])
    took = seconds(champion, *command)
    expected, names = state(champion), set(os.listdir(champion))
    assert expected != (begin_again(champion, database), state(champion))[1]
    for number in range(MOVES):
        begin_again(champion, database)
        killed(champion, MOST_SIGNALS[number % 4], generator.uniform(0, took), *command)
        if number % 2:
            succeed(champion, "promote", "--audit")
        succeed(champion, *command)
        assert state(champion) == expected, number
        assert set(os.listdir(champion)) - unused_journal(champion) == names


def test_rollback_killed_at_random_moments(champion: Path, tmp_path: Path) -> None:
    succeed(champion, *PROMOTE)
    database, generator = shutil.copy(champion / "mlflow.db", tmp_path / "before.db"), random.Random(3)
    before, took = moves(champion, "capnet"), seconds(champion, *ROLLBACK)
    after = moves(champion, "capnet")
    assert champions(champion) == {"capnet": 1}
    for number in range(MOVES):
        begin_again(champion, database)
        killed(champion, MOST_SIGNALS[number % 4], generator.uniform(0, took), *ROLLBACK)
        succeed(champion, "promote", "--audit")
        now = champions(champion)["capnet"], moves(champion, "capnet")
        assert now in ((3, before), (1, after)), number
