"""A Docker engine of the tests' own: dockerd with a folder and a socket to itself, and without a trace in the machine's
network.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

STARTED_WITHIN = 60.0  # seconds
PACKAGES = "docker.io docker-cli docker-buildx docker-registry mmdebstrap"


@dataclass
class Engine:
    """One dockerd. It makes no bridge and no firewall rules: containers and builds use this machine's network, or
    none.
    """

    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="capnet-docker-")))
    process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        return f"unix://{self.folder}/docker.sock"

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "DOCKER_HOST": self.host,
            "DOCKER_CONFIG": str(self.folder / "config"),
            "DOCKER_BUILDKIT": "1",
        }

    def start(self) -> None:
        assert os.getuid() == 0, "a Docker engine can be started by root only: run `make test-container` as root"
        assert shutil.which("dockerd"), f"dockerd is not installed: apt-get install {PACKAGES}"
        places = [
            f"--data-root={self.folder}/data",
            f"--exec-root={self.folder}/exec",
            f"--pidfile={self.folder}/docker.pid",
        ]
        command = ["dockerd", f"--host={self.host}", *places, "--bridge=none", "--iptables=false", "--ip6tables=false"]
        with open(self.folder / "dockerd.log", "wb") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        end = time.monotonic() + STARTED_WITHIN
        while time.monotonic() < end and self.process.poll() is None:
            if self.try_docker("version").returncode == 0:
                return
            time.sleep(0.2)
        raise AssertionError(
            f"the Docker engine did not start: {(self.folder / 'dockerd.log').read_text(errors='replace')[-3000:]}"
        )

    def stop(self) -> None:
        """Stop it with all containers; unmount and remove what it leaves."""
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout=40)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        for line in reversed(Path("/proc/mounts").read_text().splitlines()):
            mount = line.split()[1]
            if mount.startswith(f"{self.folder}/"):
                subprocess.run(["umount", "--lazy", mount], check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def try_docker(self, *arguments: str | Path, limit: float = 900) -> subprocess.CompletedProcess[str]:
        """Run `docker ...` and return what came of it."""
        return subprocess.run(
            ["docker", *map(str, arguments)],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=limit,
        )

    def docker(self, *arguments: str | Path, limit: float = 900) -> str:
        """Run `docker ...`, demand success, return stdout."""
        result = self.try_docker(*arguments, limit=limit)
        assert result.returncode == 0, (
            f"docker {' '.join(map(str, arguments))}\n{result.stdout}\n{result.stderr[-4000:]}"
        )
        return result.stdout

    def inspect(self, image: str) -> dict[str, Any]:
        return json.loads(self.docker("image", "inspect", image))[0]
