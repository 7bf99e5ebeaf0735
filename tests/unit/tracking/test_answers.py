"""What stands in front of an MLflow server answers in its place: the message says what to change."""

from __future__ import annotations

import sqlite3
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError
from mlflow.exceptions import MlflowException
from self_signed import self_signed

from capnet.config import Register
from capnet.tracking.faults import StoreError, explain
from capnet.tracking.store import store


@contextmanager
def answering(status: int, content: bytes, certificate: Path | None = None) -> Iterator[int]:
    """Port of a server that gives one answer to everything, by TLS where it has a certificate."""

    class Answer(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = answer

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    return self_signed(tmp_path)


def message(uri: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(StoreError) as caught, store(Register(), "register the model"):
        pass
    return str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("status", "content", "todo"),
    [
        (404, b"<html><h1>404 Not Found</h1></html>", "add the path below which the MLflow server answers"),
        (401, b'{"error": "invalid_token"}', "a proxy answered in place of MLflow"),
        (503, b"<html>no upstream</html>", "the server answers, but fails"),
    ],
)
def test_a_proxy_answers(status: int, content: bytes, todo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(status, content) as port:
        assert f"to do: {todo}" in message(f"http://127.0.0.1:{port}", monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("status", [401, 403])
def test_a_server_whose_artifact_store_refuses_its_keys(status: int) -> None:
    """MLflow hands the store's status on, in an error with a status of its own."""
    from mlflow.artifacts import list_artifacts
    from requests import RequestException

    with answering(status, b"{}") as port:
        uri = f"http://127.0.0.1:{port}"
        with pytest.raises((MlflowException, RequestException)) as caught:
            list_artifacts(artifact_uri="mlflow-artifacts:/1/models", tracking_uri=uri)
        words = str(explain(caught.value, uri, "get the model"))
    assert "to do: the server answers, but refuses the files: see its log, whether its keys" in words


@pytest.mark.parametrize(
    "error",
    [
        NoCredentialsError(),
        EndpointConnectionError(endpoint_url="http://s3.example.org", error=ConnectionRefusedError("refused")),
        ClientError({"Error": {"Code": "ExpiredToken", "Message": "it has expired"}}, "ListObjectsV2"),
        MlflowException("failures occurred while downloading one or more artifacts from s3://mlflow/1: ExpiredToken"),
    ],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_an_artifact_store_that_this_machine_reads_itself(error: Exception, wrapped: bool, database: Path) -> None:
    """MLflow hands an error of S3's client on, as it is or as the cause of its own."""
    shown = MlflowException(f"Failed to list: {error}") if wrapped else error
    shown.__cause__ = error if wrapped else None
    with pytest.raises(StoreError) as caught, store(Register(), "get the model"):
        raise shown
    (problem,) = caught.value.problems
    assert str(error) in problem.what, "and not the innermost cause alone"
    assert "the artifact store is read with keys of this machine" in problem.todo


def test_no_tls_at_an_https_address(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(200, b"{}") as port:
        assert "to do: write http://" in message(f"https://127.0.0.1:{port}", monkeypatch)


def test_a_certificate_that_nobody_here_knows(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    todo = "to do: set MLFLOW_TRACKING_SERVER_CERT_PATH"
    with answering(404, b"no", certificate) as port:
        uri = f"https://127.0.0.1:{port}"
        assert todo in message(uri, monkeypatch)
        monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", "/there/is/none.pem")
        assert todo in message(uri, monkeypatch)
        monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(certificate))
        assert "to do: add the path" in message(uri, monkeypatch)


def test_sqlite_on_a_network_file_system_may_be_in_use_elsewhere() -> None:
    """Two clients of GlusterFS see each other's changes seconds later, and SQLite says that the disk is at fault."""
    (problem,) = explain(sqlite3.OperationalError("disk I/O error"), "sqlite:///mlflow.db", "register").problems
    assert "no other machine uses the file" in problem.todo
