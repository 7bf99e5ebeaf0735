"""A store of one's own for every test, and a real server for the few that need one."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from made_once import made_once

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

Make = Callable[..., dict[str, Path]]
GOOD, BETTER = (2.0, 2.0, 2.0, 2.0), (3.0, 3.0, 3.0, 3.0)
WORSE_TAIL = (9.0, 9.0, 2.0, 1.4)  # better in the mean; the last two classes are the tail
START = 90.0  # seconds a server may take on a busy machine


def clean_environment() -> dict[str, str]:
    """The environment without variables of MLflow and of this program, which name stores and folders."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "CAPNET_"))}


@pytest.fixture
def no_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the sqlite store will be, in a folder whose name has a space; the working directory is elsewhere, in one
    whose name MLflow must not take for SQL.
    """
    folder, elsewhere = tmp_path / "my store", tmp_path / """else 'where" :it is"""
    folder.mkdir()
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
    monkeypatch.setenv("CAPNET_STATE", str(tmp_path / "state"))
    return folder / "mlflow.db"


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sqlite store with tables and nothing in them: making them takes mlflow seconds, so it is done once."""

    def make(folder: Path) -> None:
        from mlflow.tracking import MlflowClient

        MlflowClient(f"sqlite:///{folder / 'mlflow.db'}").search_experiments()

    return made_once(tmp_path_factory, "empty store", make) / "mlflow.db"


@pytest.fixture
def database(no_database: Path, empty_database: Path) -> Path:
    """A sqlite store of one's own without experiments, runs and models."""
    shutil.copy(empty_database, no_database)
    return no_database


@pytest.fixture(scope="session")
def three_versions(tmp_path_factory: pytest.TempPathFactory, outputs_maker: Make, empty_database: Path) -> Path:
    """A store with a good version, one that is better in the mean and worse in the tail, and one better everywhere."""
    from capnet.config import Register
    from capnet.registry.candidate import read_candidate
    from capnet.registry.register import register_version

    folder = tmp_path_factory.mktemp("three")
    database = Path(shutil.copy(empty_database, folder / "mlflow.db"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database}")
        patch.chdir(folder)
        for number, skill in enumerate((GOOD, WORSE_TAIL, BETTER)):
            paths = outputs_maker(folder / f"outputs {number}", mAP=0.5 + number / 10, skill=skill)
            register_version(Register(), read_candidate(**paths), paths["evaluation"] / "report.html")
    return database


@pytest.fixture
def client(no_database: Path, three_versions: Path) -> MlflowClient:
    """A copy of that store's database; the artifacts are shared."""
    from mlflow.tracking import MlflowClient

    shutil.copy(three_versions, no_database)
    return MlflowClient(os.environ["MLFLOW_TRACKING_URI"])


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[str]:
    """Address of a real mlflow server on loopback that proxies artifacts; each test has experiments and models of its
    own there.
    """
    with _serving(tmp_path_factory.mktemp("shared") / "server", empty_database) as address:
        yield address


@contextmanager
def _serving(folder: Path, empty_database: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder.mkdir()
    shutil.copy(empty_database, folder / "server.db")
    stores = [
        "--backend-store-uri",
        f"sqlite:///{folder / 'server.db'}",
        "--artifacts-destination",
        str(folder / "artifacts"),
    ]
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "1",
        *stores,
    ]
    settings = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"} | settings
    with open(folder / "log.txt", "wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        _wait(process, f"{address}/health", folder / "log.txt")
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    end = time.monotonic() + START
    while time.monotonic() < end and process.poll() is None:
        try:
            with urlopen(address, timeout=2):
                return
        except (URLError, TimeoutError, ConnectionError):
            time.sleep(0.2)
    pytest.fail(f"the mlflow server did not start: {log.read_text()[-2000:]}")
