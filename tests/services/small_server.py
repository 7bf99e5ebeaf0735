"""A real MLflow server with small disks of its own, so that they can really be full."""

from __future__ import annotations

import os
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from services.mlflow_server import start
from services.s3_server import free_ports

MEGABYTES = 24


def mount(folder: Path) -> None:
    """A file system in memory of MEGABYTES; where it cannot be had the test is skipped, on CI it fails."""
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
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
        self.serve()

    def serve(self) -> None:
        """Start the server's processes, again after they were killed."""
        settings = {"TMPDIR": str(self.artifacts)}
        self.process = start(
            self.port, f"sqlite:///{self.disk / 'server.db'}", str(self.artifacts), self.folder / "server.log", settings
        )

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
