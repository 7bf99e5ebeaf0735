"""The database file under kills, with other content, and where none can be."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import stat
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from capnet.config import Register
from capnet.tracking import database as files
from capnet.tracking.database import sqlite_file, sqlite_uri, whole_database
from capnet.tracking.faults import StoreError
from capnet.tracking.store import experiment_id, store

pytestmark = pytest.mark.slow


def in_child(path: Path, statement: int = 0, number: int = signal.SIGKILL) -> int:
    """The wait status of a process that opens the store and is killed before it sends that SQL statement."""
    import mlflow.tracking  # noqa: F401  imported once, in the parent
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    child = os.fork()
    if child == 0:
        try:
            sent = 0

            def kill(*arguments: object) -> None:
                nonlocal sent
                sent += 1
                if sent == statement:
                    os.kill(os.getpid(), number)

            event.listen(Engine, "before_cursor_execute", kill)
            with store(Register(tracking_uri=f"sqlite:///{path}"), "register the model") as client:
                experiment_id(client, Register(tracking_uri=f"sqlite:///{path}"))
            os._exit(0)
        except BaseException as error:
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
            os._exit(1)
    return os.waitpid(child, 0)[1]


@pytest.mark.parametrize("statement", [2, 60, 200])
def test_a_kill_while_the_store_is_made_leaves_none_and_the_next_call_makes_it(
    no_database: Path, monkeypatch: pytest.MonkeyPatch, statement: int
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert os.WTERMSIG(in_child(no_database, statement)) == signal.SIGKILL
    assert not no_database.exists()
    assert in_child(no_database) == 0
    assert [path.name for path in no_database.parent.iterdir()] == ["mlflow.db"]


def test_what_an_older_version_left_half_made_is_set_aside(
    no_database: Path, monkeypatch: pytest.MonkeyPatch, empty_database: Path
) -> None:
    """As MLflow leaves it after a kill: some tables of the beginning, and no experiment."""
    with closing(sqlite3.connect(no_database)) as connection:
        connection.execute("create table experiments (experiment_id integer primary key, name varchar)")
        connection.execute("create table alembic_version (version_num varchar)")
    hour_ago = time.time() - 3600
    os.utime(no_database, (hour_ago, hour_ago))
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert in_child(no_database) == 0
    assert no_database.with_name("mlflow.db.unfinished").is_file()


def test_one_that_is_dated_in_the_future_is_waited_for_no_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock was ahead when the store was begun."""
    monkeypatch.setattr(files, "SETTLED", 0.5)
    (path := tmp_path / "mlflow.db").touch()
    os.utime(path, (time.time() + 3600,) * 2)
    with whole_database(path, made):
        assert path.stat().st_size
    assert path.with_name("mlflow.db.unfinished").is_file()


def made(uri: str) -> None:
    path = Path(uri.removeprefix("sqlite:///"))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("create table experiments (name text)")
        connection.execute("insert into experiments values ('made')")
        connection.commit()


@pytest.mark.parametrize("statements", [["create table birds (name text)"], ["create table experiments (name text)"]])
def test_a_file_that_another_program_uses_or_makes_right_now_is_left_alone(
    tmp_path: Path, statements: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that has just been changed and gets its content while we wait, and one of another kind, however old."""
    monkeypatch.setattr(files, "SETTLED", 3600.0)
    monkeypatch.setattr(files.time, "sleep", lambda seconds: made(f"sqlite:///{tmp_path / 'other'}") or fill())
    path = tmp_path / "mlflow.db"

    def fill() -> None:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("insert into experiments values ('Default')")
            connection.commit()
        (tmp_path / "other").unlink()

    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
    with whole_database(path, made):
        pass
    assert [item.name for item in tmp_path.iterdir()] == ["mlflow.db"]
    with closing(sqlite3.connect(path)) as connection:
        assert ("made",) not in connection.execute(
            "select name from experiments" if "experiments" in statements[0] else "select name from birds"
        ).fetchall()


@pytest.mark.parametrize("kind", ["a file as its folder", "a folder as the file", "no database", "full"])
def test_a_store_that_cannot_be_made_says_so_within_seconds(
    no_database: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    if kind == "a file as its folder":
        shutil.rmtree(no_database.parent)
        no_database.parent.write_text("x")
    elif kind == "a folder as the file":
        no_database.mkdir()
    elif kind == "no database":
        no_database.write_text("no database\n" * 100)
    else:

        def full(*arguments: object) -> None:
            raise sqlite3.OperationalError("database or disk is full")

        monkeypatch.setattr(files, "_make", full)
    started = time.monotonic()
    with pytest.raises(StoreError) as caught, store(Register(), "register the model"):
        pytest.fail("the store answered")
    assert time.monotonic() - started < 10
    (problem,) = caught.value.problems
    assert problem.what.startswith("could not register the model: ")
    assert problem.where
    assert "another store" in problem.todo


def test_a_task_of_a_cluster_writes_no_database_that_goes_with_its_pod(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("KFP_POD_NAME", "capnet-training-x-123")
    for reads in (False, True):
        wrong = pytest.raises(StoreError, match=r"goes with the pod(.|\n)*MLFLOW_TRACKING_URI")
        with wrong as caught, store(Register(), "register the model", reads):
            pass
        assert "capnet-mlflow" in str(caught.value)
    assert not (tmp_path / "mlflow.db").exists()
    monkeypatch.setenv("CAPNET_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/state/mlflow.db")
    with store(Register(), "register the model"):
        assert (tmp_path / "state" / "mlflow.db").exists()


def test_a_group_that_the_umask_gives_the_right_to_write_has_it(tmp_path: Path) -> None:
    before = os.umask(0o002)
    try:
        with store(Register(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db"), "make a store"):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "mlflow.db").stat().st_mode) == 0o664


def test_an_address_with_percent_20_is_read_as_sqlalchemy_reads_it(tmp_path: Path) -> None:
    (tmp_path / "a b").mkdir()
    uri = f"sqlite:///{tmp_path}/a%20b/mlflow.db"
    for reads in (False, True):
        with store(Register(tracking_uri=uri), "try", reads=reads) as client:
            assert client.search_experiments()
    opened = Path(make_url(uri).database or "")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [opened]
    assert sqlite_file(uri) == opened


@pytest.mark.parametrize("name", ["a%20b", "100%", "50% of ü", "plain"])
def test_the_address_of_a_file_names_that_file(tmp_path: Path, name: str) -> None:
    database = tmp_path / name / "mlflow.db"
    uri = sqlite_uri(database)
    assert sqlite_file(uri) == database
    with store(Register(tracking_uri=uri), "try"):
        pass
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [database]


def test_no_store_takes_the_place_of_a_broken_link(tmp_path: Path) -> None:
    """Its volume is not mounted: in a new store, a first version would pass the gate without a champion."""
    path = tmp_path / "mlflow.db"
    path.symlink_to(tmp_path / "volume" / "mlflow.db")
    settings = Register(tracking_uri=f"sqlite:///{path}")
    for reads in (False, True):
        with pytest.raises(StoreError, match="a broken link"), store(settings, "read", reads=reads):
            pass
    assert path.is_symlink()


def test_a_link_to_a_store_that_was_only_begun_stays_a_link(tmp_path: Path) -> None:
    path, target = tmp_path / "mlflow.db", tmp_path / "volume" / "mlflow.db"
    target.parent.mkdir()
    target.touch()
    os.utime(target, (0, 0))
    path.symlink_to(target)
    with store(Register(tracking_uri=f"sqlite:///{path}"), "register the model") as client:
        client.create_registered_model("capnet")
    assert path.is_symlink()
    assert target.stat().st_size > 0
