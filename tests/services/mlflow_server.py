"""A real MLflow server on loopback: PostgreSQL behind it, artifacts in S3 and proxied, so that clients need the address only."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from services.s3_server import S3Server, free_ports

STARTED_WITHIN = 120.0  # seconds


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
        stores = ["--backend-store-uri", self.database, "--artifacts-destination", f"s3://{self.bucket}"]
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1", *stores]
        settings = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_S3_ENDPOINT_URL": self.s3.endpoint}
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")} | self.s3.environment() | settings
        with open(self.folder / "mlflow.log", "ab") as log:
            self.process = subprocess.Popen(command, cwd=self.folder, env=environment, stdout=log, stderr=log, start_new_session=True)
        end = time.monotonic() + STARTED_WITHIN
        while time.monotonic() < end and self.process.poll() is None:
            try:
                with urlopen(f"{self.address}/health", timeout=2):
                    return
            except (URLError, TimeoutError, ConnectionError):
                time.sleep(0.2)
        raise AssertionError(f"the MLflow server did not start: {(self.folder / 'mlflow.log').read_text(errors='replace')[-3000:]}")

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
