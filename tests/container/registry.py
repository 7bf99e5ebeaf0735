"""A real registry on loopback: Debian's docker-registry, one process, its store in a folder of the tests."""

from __future__ import annotations

import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.request import urlopen

from services.s3_server import free_ports

STARTED_WITHIN = 30.0  # seconds


@dataclass
class Registry:
    """Docker trusts one on 127.0.0.1 without a certificate."""

    folder: Path
    port: int = field(default_factory=lambda: free_ports(1)[0])
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        settings = (
            f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {self.folder}/store}}}}\nhttp: {{addr:"
            f" '{self.address}'}}\nlog: {{level: error}}\n"
        )
        (self.folder / "registry.yml").write_text(settings)
        with open(self.folder / "registry.log", "wb") as log:
            self.process = subprocess.Popen(
                ["docker-registry", "serve", str(self.folder / "registry.yml")], stdout=log, stderr=log
            )
        end = time.monotonic() + STARTED_WITHIN
        while time.monotonic() < end and self.process.poll() is None:
            with suppress(OSError), urlopen(f"http://{self.address}/v2/", timeout=2):
                return
            time.sleep(0.1)
        raise AssertionError(
            f"the registry did not start: {(self.folder / 'registry.log').read_text(errors='replace')[-2000:]}"
        )

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(timeout=20)
