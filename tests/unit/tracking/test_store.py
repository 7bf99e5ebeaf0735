"""Talking to a store that is not there, refuses, or is of another kind: a message in three parts, soon."""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from capnet.config import Register, parse
from capnet.errors import ConfigError
from capnet.tracking.database import sqlite_file
from capnet.tracking.faults import StoreError, explain
from capnet.tracking.store import local_path, quiet_environment, store, tracking_uri


class _Refusing(BaseHTTPRequestHandler):
    """What a server behind a login answers to anybody."""

    def _refuse(self) -> None:
        self.send_response(401)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST = _refuse

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def refusing() -> Iterator[int]:
    """Port of a server that answers 401."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Refusing) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def _message(uri: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(StoreError) as caught, store(Register(), "register the model"):
        pytest.fail("the store answered")
    assert [problem.where for problem in caught.value.problems] == [uri.replace("hunter2", "***")]
    assert caught.value.exit_code == 1
    return str(caught.value)


def test_no_server_at_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        begin = time.monotonic()
        text = _message(f"http://127.0.0.1:{port}", monkeypatch)
    assert text.startswith("could not register the model: [Errno 111] Connection refused\n")
    assert "to do: see that the MLflow server runs at this address" in text
    assert time.monotonic() - begin < 30


@pytest.mark.slow
def test_a_server_that_never_answers_is_given_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")  # what the user has set wins
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        begin = time.monotonic()
        text = _message(f"http://127.0.0.1:{silent.getsockname()[1]}", monkeypatch)
    assert "timed out" in text
    assert time.monotonic() - begin < 20


def test_wrong_credentials_name_the_variables_and_keep_the_password(
    refusing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = _message(f"http://someone:hunter2@127.0.0.1:{refusing}", monkeypatch)
    assert "401" in text
    assert "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" in text
    assert f"http://someone:***@127.0.0.1:{refusing}" in text
    assert "hunter2" not in text


@pytest.mark.parametrize(
    ("uri", "part"),
    [
        ("ftp://127.0.0.1/store", "unsupported URI"),
        ("sqlite:////dev/null/mlflow.db", "could not register the model: "),
        ("postgresql+nosuchdriver://someone:hunter2@127.0.0.1/mlflow", "could not register the model: "),
    ],
)
def test_other_wrong_addresses(uri: str, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = _message(uri, monkeypatch)
    assert part in text
    assert "hunter2" not in text


@pytest.mark.parametrize(
    ("uri", "part"),
    [
        ("127.0.0.1:5000", "write http:// or https:// in front"),
        ("mlflow.example:5000/prefix", "write http:// or https:// in front"),
        ("http//127.0.0.1:9", "write http://HOST:PORT"),
        ("http:127.0.0.1:9", "write http://HOST:PORT"),
        ("sqlite:/foo.db", "write sqlite:///FILE"),
        ("postgres://user@127.0.0.1/x", "write postgresql://"),
        ("'http://127.0.0.1:9'", "quotes and blanks"),
        ("http://127.0.0.1:9 ", "quotes and blanks"),
    ],
)
def test_a_mistyped_address_is_named_and_taken_for_no_folder(
    uri: str, part: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    message = _message(uri, monkeypatch)
    assert "this is no address of an MLflow store" in message
    assert part in message
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variable", "value"), [("MLFLOW_HTTP_REQUEST_TIMEOUT", "abc"), ("MLFLOW_LOGGING_LEVEL", "loud")]
)
def test_a_variable_that_mlflow_cannot_read_is_named(tmp_path: Path, variable: str, value: str) -> None:
    """In a process of its own: MLflow reads some when it is imported."""
    environment = os.environ | {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", variable: value}
    command = [sys.executable, "-m", "capnet.cli", "promote", "--params", str(tmp_path / "params.yaml")]
    (tmp_path / "params.yaml").write_text("register: {}\n")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert variable in done.stderr
    assert value in done.stderr.lower()


def test_an_account_without_a_home_has_one_for_mlflow() -> None:
    """Of a container's user that no list of accounts names; MLflow asks for its home when it is imported."""
    script = (
        "import os, pathlib, pwd; os.environ.pop('HOME', None); pwd.getpwuid = {}.__getitem__\n"
        "from capnet.tracking.store import quiet_environment\n"
        "with quiet_environment(): print(pathlib.Path.home())\n"
        "print('HOME' in os.environ)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout.split() == ["/", "False"], done.stderr


def test_a_full_temporary_folder_is_no_reason_for_another_store() -> None:
    reason = "[Errno 28] No space left on device: '/store/model' -> '/tmp/capnet-process.1/model'"
    (problem,) = explain(OSError(reason), "sqlite:///mlflow.db", "get the model").problems
    assert "TMPDIR" in problem.todo
    assert "MLFLOW_TRACKING_URI" not in problem.todo


def test_a_short_password_takes_no_letters_out_of_a_message() -> None:
    reason = "connection to postgresql://me:p@127.0.0.1/x failed, see https://www.example.org/help"
    message = str(explain(OSError(reason), "postgresql://me:p@127.0.0.1/x", "register"))
    assert "me***127.0.0.1/x failed, see https://www.example.org/help" in message


def test_the_environment_wins_over_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Register(tracking_uri="sqlite:///own.db")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_uri(settings) == "sqlite:///own.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    assert tracking_uri(settings) == "http://127.0.0.1:1"


def test_sqlite_files_and_local_folders_are_told_from_addresses() -> None:
    assert sqlite_file("sqlite:///mlflow.db") == Path("mlflow.db")
    assert sqlite_file("sqlite:////a/b.db?timeout=3") == Path("/a/b.db")
    assert [sqlite_file(uri) for uri in ("sqlite://", "postgresql://h/mlflow.db", "http://h", "./mlruns")] == [None] * 4
    assert local_path("file:///my%20store/mlruns") == Path("/my store/mlruns")
    assert local_path("/plain") == Path("/plain")
    assert [local_path(uri) for uri in ("s3://b/x", "mlflow-artifacts:/1")] == [None, None]


@pytest.mark.parametrize(
    "wrong",
    [
        {"alias": "latest"},
        {"alias": "Latest"},
        {"alias": "v12"},
        {"alias": "a b"},
        {"name": "a/b"},
        {"name": "a:b"},
        {"name": "it's"},
        {"name": ""},
    ],
)
def test_names_that_mlflow_refuses_are_refused_before_training(wrong: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=rf"register\.{next(iter(wrong))}"):
        parse({"register": wrong})


@pytest.mark.parametrize("fine", [{"alias": "vega"}, {"alias": "challenger-2"}, {"name": "Vögel 2.0"}])
def test_names_that_mlflow_accepts(fine: dict[str, str]) -> None:
    parse({"register": fine})


class Restarts(BaseHTTPRequestHandler):
    """An MLflow server that answers 503 for a while."""

    away = 4

    def log_message(self, *_: Any) -> None:
        """Tests print enough."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        type(self).away -= 1
        body = b"{}"
        self.send_response(503 if type(self).away >= 0 else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST


@pytest.mark.slow
@pytest.mark.parametrize("in_a_pod", [True, False])
def test_a_task_of_a_cluster_waits_for_a_server_that_restarts(monkeypatch: pytest.MonkeyPatch, in_a_pod: bool) -> None:
    if in_a_pod:
        monkeypatch.setenv("KFP_POD_NAME", "capnet-training-x-123")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    handler = type("Bound", (Restarts,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.server_address[1]}")
    try:
        with nullcontext() if in_a_pod else pytest.raises(StoreError), store(parse({}).register_, "register"):
            pass
    finally:
        server.shutdown()
        server.server_close()


def test_two_threads_that_overlap_leave_no_variable_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
    monkeypatch.delenv(name, raising=False)
    first, second = ExitStack(), ExitStack()
    for thread in (first, second):
        thread.enter_context(quiet_environment())
    assert name in os.environ
    for thread in (first, second):
        thread.close()
    assert name not in os.environ


def test_an_error_of_the_database_is_a_message_and_no_traceback(
    database: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def look_in_vain() -> None:
        with store(Register(), "register the model") as client, closing(sqlite3.connect(database)) as connection:
            connection.execute("drop table runs")
            client.get_run("0" * 32)

    with pytest.raises(StoreError, match="no such table"):
        look_in_vain()
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("revision", "todo"),
    [
        ("ffffffffffff", "install a newer MLflow here"),
        ("451aebb31d03", "`mlflow db upgrade 'sqlite:///{}'` after a backup"),  # one of MLflow 1
    ],
)
def test_a_store_of_another_mlflow_says_which_of_the_two_to_upgrade(
    database: Path, monkeypatch: pytest.MonkeyPatch, revision: str, todo: str
) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("update alembic_version set version_num = ?", (revision,))
    text = _message(f"sqlite:///{database}", monkeypatch)
    assert f"found version {revision}" in text
    assert todo.format(database) in text
    assert ("install a newer" in text) != ("after a backup" in text)


@pytest.mark.parametrize("uri", ["sqlite://", "sqlite:///", "sqlite:///:memory:"])
def test_a_database_that_is_kept_nowhere_is_refused(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(StoreError, match="kept nowhere"), store(Register(tracking_uri=uri), "register the model"):
        pass
