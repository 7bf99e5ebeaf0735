"""One S3 server for all tests, a bucket for each, and the environment that a user would set."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from services.mlflow_server import MlflowServer
from services.postgres import Postgres
from services.s3_server import S3Server

NUMBERS = itertools.count(1)
BUCKET = "mlflow-artifacts"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """SeaweedFS on loopback; it is stopped with the last test."""
    started = S3Server(tmp_path_factory.mktemp("s3"))
    try:
        started.start()
        yield started
    finally:
        started.kill()


@pytest.fixture(scope="session")
def tracking(server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """An MLflow server with PostgreSQL behind it and artifacts in S3."""
    server.client().create_bucket(Bucket=BUCKET)
    postgres = Postgres()
    postgres.start()
    mlflow = MlflowServer(tmp_path_factory.mktemp("mlflow"), postgres.uri, server, BUCKET)
    try:
        mlflow.start()
        yield mlflow
    finally:
        mlflow.stop()
        postgres.stop()


@pytest.fixture
def s3(server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The server, with its address and credentials in the environment, and a state folder of the test's own."""
    monkeypatch.setenv("CAPNET_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "dvc"))
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    return server


@pytest.fixture
def bucket(s3: S3Server) -> str:
    """A new bucket."""
    name = f"pictures-{next(NUMBERS)}"
    s3.client().create_bucket(Bucket=name)
    return name
