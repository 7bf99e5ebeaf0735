"""Where state and MLflow's store are, and whether they can be used: `capnet doctor` on this machine."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from capnet.commands.doctor.findings import Checks, Finding, wrong
from capnet.errors import counted
from capnet.machine_faults import check_writable, machine_faults
from capnet.state import check_usable, state_folder

if TYPE_CHECKING:
    from capnet.config import Register

WAIT = 1.0  # seconds for another process that writes to the database
ARTIFACTS = 2  # seconds for the artifact store: less than the command has


def machine_checks(settings: Register) -> Checks:
    """The checks by name; what they import is loaded before the clock runs."""
    from capnet.tracking.database import sqlite_file
    from capnet.tracking.store import preload, tracking_uri

    uri = tracking_uri(settings)
    database = sqlite_file(uri)
    if database is not None:
        return {"state": check_state, "mlflow": lambda: check_database(database.absolute())}
    preload()
    return {"state": check_state, "mlflow": lambda: check_server(settings, uri)}


def check_state() -> Iterable[Finding]:
    """Whether the state folder, or the folder that it will be made in, can be written to."""
    folder = state_folder().absolute()
    with machine_faults(folder, "the state folder cannot be used (CAPNET_STATE names another)"):
        check_usable(existing := _existing(folder))
        free = shutil.disk_usage(existing).free / 1e9
    made = "" if existing == folder else ", does not exist yet"
    yield Finding("state", f"{folder}{made}, can be written to, {free:.1f} GB free")


def check_database(database: Path) -> Iterable[Finding]:
    """Whether MLflow's database file, or the folder that it will be made in, can be written to."""
    with machine_faults(database, "the MLflow store cannot be written to"):
        check_writable(_existing(database.parent))  # SQLite also writes a journal there
        if not os.path.lexists(database):
            yield Finding("mlflow", f"{database} does not exist yet: the first `capnet register` makes it")
            return
        open(database, "r+b").close()
    try:
        with closing(sqlite3.connect(database, timeout=WAIT)) as connection:
            models = connection.execute("select count(*) from registered_models").fetchone()[0]
    except sqlite3.Error as error:
        todo = "wait for the process that writes to it; if there is none, name another file in register.tracking_uri"
        yield wrong("mlflow", f"the MLflow store cannot be read: {error}", str(database), todo)
        return
    yield Finding("mlflow", f"{database} can be written to, {counted(models, 'registered model')}")


def check_server(settings: Register, uri: str) -> Iterable[Finding]:
    """Whether a store that is no file answers, and the artifact store behind it. Whether this account may write there
    is not asked: only use would show.

    Args:
        settings: say where it is.
        uri: its address, for the message.
    """
    from capnet.tracking.faults import StoreError
    from capnet.tracking.store import ask_artifacts, store

    with store(settings, "reach the MLflow store", reads=True) as client:
        experiments = client.search_experiments(max_results=1)
        location = experiments[0].artifact_location if experiments else "no experiment names it"
        if urlsplit(location).scheme != "mlflow-artifacts":  # asked by whoever uses it, with keys of its own
            yield Finding("mlflow", f"{uri} answers; its artifact store was not asked: {location}")
            return
        yield Finding("mlflow", f"{uri} answers")
        try:
            ask_artifacts(f"{location}/asked-by-capnet-doctor", uri, ARTIFACTS)
        except StoreError as error:
            todo = "see the server's log: whether its artifact store runs, has room and takes the server's keys"
            yield wrong("mlflow", error.problems[0].what, uri, todo)
            return
        yield Finding("mlflow", "its artifact store answers")


def _existing(folder: Path) -> Path:
    """The folder, or the first one around it that exists."""
    return next(path for path in (folder, *folder.parents) if path.exists())
