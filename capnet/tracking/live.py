"""The callback that `stages.run` gives to a stage: values go to the spool, and a process of its own sends them while
the stage works.
"""

from __future__ import annotations

import math
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from capnet.config import Params, Register
from capnet.contracts import sha256_file
from capnet.tracking.spool import Spool, open_spool, remember, spool_of

Log = Callable[[Mapping[str, float], int], None]
PATIENCE = 3.0  # seconds that a finished stage waits for the sender


@contextmanager
def tracked(stage: str, params: Params, inputs: Mapping[str, Path], outputs: Mapping[str, Path]) -> Iterator[Log]:
    """``log(values, step)`` for one stage, which never raises: a full disk or a bad server is no reason to end a
    training run.

    A stage that reads a model goes on in the run that made it. The run is finished, or failed, with the stage.
    """
    spool = _spool(stage, params.register_, inputs)
    if spool is None:
        yield lambda values, step: None
        return
    sender = _sender(spool, params.register_)
    clock, busy = time.monotonic(), time.process_time()

    def log(values: Mapping[str, float], step: int) -> None:
        nonlocal clock, busy
        now, used = time.monotonic(), time.process_time()
        machine = {
            "system/cpu_utilization_percentage": 100 * (used - busy) / max(1e-3, now - clock),
            "system/process_memory_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }
        clock, busy = now, used
        finite = {name: float(value) for name, value in {**values, **machine}.items() if math.isfinite(value)}
        with suppress(OSError):
            spool.add({"kind": "metrics", "values": finite, "step": step})

    try:
        yield log
    except BaseException as error:
        _close(spool, sender, "FAILED" if isinstance(error, Exception) else "KILLED")
        raise
    with suppress(OSError):
        model = outputs.get("model")
        if model is not None:
            remember(sha256_file(model / "model.safetensors"), spool)
    _close(spool, sender, "FINISHED")


def _spool(stage: str, settings: Register, inputs: Mapping[str, Path]) -> Spool | None:
    given = os.environ.get("MLFLOW_RUN_ID", "")
    try:
        model = inputs.get("model")
        if model is not None and not given:
            return spool_of(sha256_file(model / "model.safetensors"))
        return open_spool(settings.experiment, f"{settings.name}-{stage}", given)
    except OSError:
        return None


def _sender(spool: Spool, settings: Register) -> subprocess.Popen[bytes] | None:
    """A process that sends while the stage works, for a server; a database file gets everything from `capnet
    register`.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or settings.tracking_uri
    if not uri.startswith(("http://", "https://")):
        return None
    command = [sys.executable, "-m", "capnet.tracking.follow", str(spool.folder), str(os.getpid())]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": uri, "OMP_NUM_THREADS": "1"}
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )
    except OSError:
        return None


def _close(spool: Spool, sender: subprocess.Popen[bytes] | None, status: str) -> None:
    with suppress(OSError):
        spool.add({"kind": "end", "status": status})
    if sender is not None:
        with suppress(subprocess.TimeoutExpired):
            sender.wait(PATIENCE)
