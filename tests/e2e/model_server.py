"""A server that `mlflow models serve` starts, and what is asked of it."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest
from e2e.workspace import Workspace


class serving:
    """The server's process, its address and its log; stopped with all its children at the end."""

    def __init__(self, workspace: Workspace, port: int, model: str = "models:/capnet@champion") -> None:
        self.log = workspace.root / f"serve {port}.log"
        command = [
            "mlflow",
            "models",
            "serve",
            "-m",
            model,
            "--env-manager",
            "local",
            "--port",
            str(port),
            "--workers",
            "1",
        ]
        environment = workspace.environment() | {
            "MLFLOW_TRACKING_URI": f"sqlite:///{workspace.root / 'mlflow.db'}",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "CAPNET_SERVE_ROOT": str(workspace.root / "data"),
        }
        with open(self.log, "wb") as file:
            self.process = subprocess.Popen(
                command, cwd=workspace.root, env=environment, stdout=file, stderr=file, start_new_session=True
            )
        self.address = f"http://127.0.0.1:{port}"

    def __enter__(self) -> tuple[subprocess.Popen[bytes], str, Path]:
        return self.process, self.address, self.log

    def __exit__(self, *arguments: object) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def wait(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    end = time.monotonic() + 180
    while time.monotonic() < end and process.poll() is None:
        try:
            with urlopen(f"{address}/ping", timeout=2):
                return
        except (URLError, TimeoutError, ConnectionError):
            time.sleep(0.3)
    pytest.fail(f"the server did not start: {log.read_text()[-3000:]}")


def ask(address: str, records: list[dict[str, Any]], **more: Any) -> list[dict[str, Any]]:
    body = json.dumps({"dataframe_records": records, **more}).encode()
    with urlopen(Request(f"{address}/invocations", body, {"Content-Type": "application/json"}), timeout=120) as answer:
        result: list[dict[str, Any]] = json.load(answer)["predictions"]
        return result


def b64(path: str) -> str:
    return base64.b64encode(Path(path).read_bytes()).decode()
