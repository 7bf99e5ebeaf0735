"""A real MLflow server with small disks of its own, so that they can really be full."""

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

import pytest
from services.s3_server import free_ports

STARTED_WITHIN = 120.0  # seconds
MEGABYTES = 24


def mount(folder: Path) -> None:
    """A file system in memory of MEGABYTES; where it cannot be had the test is skipped, on CI it fails."""
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "tmpfs", str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        reason = f"a small disk cannot be mounted: {done.stderr.strip()}; run these tests as root"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{reason}; on CI they must run")
        pytest.skip(reason)


@dataclass
class SmallServer:
    """The database (SQLite) lies on one disk, artifacts on another, the log beside them."""

    folder: Path
    small: bool = True
    port: int = field(default_factory=lambda: free_ports(1)[0])
    process: subprocess.Popen[bytes] | None = None

    @property
    def disk(self) -> Path:
        return self.folder / "disk"

    @property
    def artifacts(self) -> Path:
        return self.folder / "artifacts"

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        for disk in (self.disk, self.artifacts):
            disk.mkdir()
            if self.small:
                mount(disk)
        stores = ["--backend-store-uri", f"sqlite:///{self.disk / 'server.db'}", "--artifacts-destination", str(self.artifacts)]
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1", *stores]
        settings = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true", "TMPDIR": str(self.artifacts)}
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")} | settings
        with open(self.folder / "server.log", "ab") as log:
            self.process = subprocess.Popen(command, cwd=self.folder, env=environment, stdout=log, stderr=log, start_new_session=True)
        end = time.monotonic() + STARTED_WITHIN
        while time.monotonic() < end and self.process.poll() is None:
            try:
                with urlopen(f"{self.address}/health", timeout=2):
                    return
            except (URLError, TimeoutError, ConnectionError):
                time.sleep(0.2)
        raise AssertionError(f"the MLflow server did not start: {self.log[-3000:]}")

    @property
    def log(self) -> str:
        return (self.folder / "server.log").read_text(errors="replace")

    def send(self, number: signal.Signals) -> None:
        """To the server and all its workers."""
        assert self.process is not None
        os.killpg(self.process.pid, number)

    def fill(self) -> None:
        """Until not a byte fits beside the database any more."""
        with open(self.disk / "filler", "ab", buffering=0) as file:
            for size in (1 << 16, 1):
                try:
                    while True:
                        file.write(b"x" * size)
                except OSError:
                    continue

    def free(self) -> None:
        (self.disk / "filler").unlink()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.send(signal.SIGCONT)
            self.send(signal.SIGTERM)
            try:
                self.process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                self.send(signal.SIGKILL)
                self.process.wait()
        for disk in (self.disk, self.artifacts) if self.small else ():
            subprocess.run(["umount", str(disk)], capture_output=True, check=False)
