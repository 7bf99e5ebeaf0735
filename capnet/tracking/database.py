"""MLflow's database file: made whole or not at all, by one process at a time; an unusable one is known in seconds."""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from capnet.state import state_folder

# every store in use has a row in one of these: MLflow makes the first experiment when all tables are there
CONTENT = ("experiments", "runs", "registered_models", "model_versions")
STEPS = ("alembic_version", "_alembic_tmp_experiments")  # tables of a store that is being made
SETTLED = 10.0  # seconds without a change after which nobody is making a store any more
POD_NAME = "KFP_POD_NAME"  # variable of every task of Kubeflow Pipelines
JOURNALS = ("", "-journal", "-wal", "-shm")


def sqlite_file(uri: str) -> Path | None:
    """The database file of a ``sqlite:///`` URI; None for any other store."""
    if not uri.startswith("sqlite:///"):
        return None
    path = uri.removeprefix("sqlite:///").partition("?")[0]
    if "%" in path:
        with suppress(ImportError):  # without it nothing opens the file
            from sqlalchemy.engine import make_url

            path = make_url(f"sqlite:///{path}").database or ""  # SQLAlchemy 2.1 reads %20 as a blank, 2.0 does not
    return Path(path) if path else None


def sqlite_uri(database: Path) -> str:
    """The address for which ``sqlite_file`` gives this file."""
    if "%" not in str(database):
        return f"sqlite:///{database}"
    from sqlalchemy.engine import URL

    return URL.create("sqlite", database=str(database)).render_as_string()


def goes_with_the_pod(database: Path) -> bool:
    """Whether this is a task of a cluster, and the file lies outside of the state folder, which may be a volume."""
    return POD_NAME in os.environ and not database.resolve().is_relative_to(state_folder().resolve())


def goes_with_the_experiment(database: Path) -> bool:
    """Whether the file lies in a folder that DVC makes for an experiment (``--queue``, ``--temp``) and then deletes."""
    return "/.dvc/tmp/exps/" in database.resolve().as_posix()


def of_another_store(folder: Path, database: Path) -> bool:
    """Whether a folder of artifacts is the ``mlruns/`` of another database of the same name, so that this database is a
    copy.
    """
    other = folder.parent / database.name
    return folder.name == "mlruns" and other.is_file() and not other.samefile(database)


def new_store(uri: str) -> Any:
    """MLflow's store with its tables. MLflow pastes the folder of its first experiment, by default the working one,
    into an SQL statement: a path may have quotes and colons in it, a URI has none.

    Args:
        uri: ``sqlite:///`` and the file.
    """
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    make: Callable[[str, str], Any] = SqlAlchemyStore
    return make(uri, Path(sqlite_file(uri) or "").resolve().with_name("mlruns").as_uri())


@contextmanager
def whole_database(database: Path | None, make_store: Callable[[str], object]) -> Iterator[None]:
    """One process at a time opens a database file first, and finds a whole store there.

    MLflow makes its tables in dozens of steps: two processes at once, or one that is killed, leave a file that it never
    opens again. So a new store is made under another name and renamed. The beginning of a store that holds nothing is
    set aside as ``NAME.unfinished``.

    Args:
        database: the file; nothing is done for a store of another kind.
        make_store: makes a store at the URI that it is given.

    Raises:
        OSError, sqlite3.Error: no store can be there.
    """
    if database is None:
        yield
        return
    if database.is_symlink():  # a new store would take the link's place
        if not database.exists():  # as where the volume of the store is not mounted
            raise FileNotFoundError(errno.ENOENT, "a broken link", str(database))
        database = database.resolve()
    database.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(database.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)  # on the folder, so that no file of a lock is left
        if _is_only_begun(database):
            os.replace(database, database.with_name(f"{database.name}.unfinished"))
        if not database.exists():
            _make(database, make_store)
        yield
    finally:
        os.close(folder)


def _is_only_begun(database: Path) -> bool:
    """Is this a store that somebody began to make, and nobody is making any more?"""
    seen, since = 0.0, 0.0
    while database.exists():
        changed = database.stat().st_mtime
        if changed != seen:
            seen, since = changed, time.monotonic()
        with closing(sqlite3.connect(database, timeout=SETTLED)) as connection:
            tables = {row[0] for row in connection.execute("select name from sqlite_master where type = 'table'")}
            if tables and not tables & {*CONTENT, *STEPS}:
                return False  # of another program
            if any(connection.execute(f"select 1 from {name} limit 1").fetchone() for name in tables & {*CONTENT}):
                return False
        if max(time.time() - changed, time.monotonic() - since) > SETTLED:  # the clock may have been set back
            return True
        time.sleep(0.2)
    return False


def _make(database: Path, make_store: Callable[[str], object]) -> None:
    temporary = database.with_name(f".{database.name}.new")
    _remove(temporary)
    try:
        temporary.touch()  # SQLite itself would take the right to write from a group that the umask gives it
        # MLflow would try again for minutes where nothing can be written
        with closing(sqlite3.connect(temporary)) as connection:
            connection.execute("create table probe (number integer)")
            connection.execute("drop table probe")
        make_store(sqlite_uri(temporary))
        os.replace(temporary, database)
    finally:
        _remove(temporary)


def _remove(temporary: Path) -> None:
    for ending in JOURNALS:
        temporary.with_name(temporary.name + ending).unlink(missing_ok=True)
