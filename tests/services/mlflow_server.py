"""A real MLflow server on loopback: PostgreSQL behind it, artifacts in S3 and proxied, so that clients need the address
only.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from services.s3_server import S3Server, free_ports

STARTED_WITHIN = 120.0  # seconds


def start(port: int, database: str, artifacts: str, log: Path, settings: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """A server that answers; its workers are in its process group."""
    stores = ["--backend-store-uri", database, "--artifacts-destination", artifacts]
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
    usual = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    environment = (
        {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")} | usual | dict(settings)
    )
    with open(log, "ab") as file:
        process = subprocess.Popen(
            command, cwd=log.parent, env=environment, stdout=file, stderr=file, start_new_session=True
        )
    end = time.monotonic() + STARTED_WITHIN
    while time.monotonic() < end and process.poll() is None:
        try:
            with urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
                return process
        except (URLError, TimeoutError, ConnectionError):
            time.sleep(0.2)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    raise AssertionError(f"the MLflow server did not start: {log.read_text(errors='replace')[-3000:]}")


@dataclass
class MlflowServer:
    """One server; stopped with all its workers."""

    folder: Path
    database: str
    s3: S3Server
    bucket: str
    port: int = field(default_factory=lambda: free_ports(1)[0])
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        settings = {"MLFLOW_S3_ENDPOINT_URL": self.s3.endpoint, **self.s3.environment()}
        self.process = start(self.port, self.database, f"s3://{self.bucket}", self.folder / "mlflow.log", settings)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
