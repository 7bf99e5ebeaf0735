"""The serving container's command, without the container."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import requests


@contextmanager
def serving(command: list[str], environment: dict[str, str], folder: Path, port: int) -> Iterator[str]:
    """The container's command, without the container."""
    log, address = folder / "serve.log", f"http://127.0.0.1:{port}"
    with open(log, "wb") as file:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=file, stderr=file, start_new_session=True
        )
    try:
        end = time.monotonic() + 180
        while True:
            with suppress(requests.RequestException):
                if requests.get(f"{address}/ping", timeout=2).ok:
                    break
            assert time.monotonic() < end, log.read_text()[-3000:]
            assert process.poll() is None, log.read_text()[-3000:]
            time.sleep(0.3)
        yield address
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
