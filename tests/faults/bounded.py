"""A call in a process of its own, with its time and its memory measured: what it returned, refused or died of.

The process is a fork of one that has imported little: to fork a process of pytest, which has imported everything and
keeps what tests made, takes twenty times as long.
"""

from __future__ import annotations

import gc
import importlib
import os
import pickle
import resource
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import cloudpickle

from capnet.errors import CapnetError

GIGABYTE = 1000  # what a hostile file may take at most
SECONDS = 20.0
SLOW = (
    "numpy",
    "pandas",
    "PIL.Image",
    "pyarrow.csv",
    "pyarrow.parquet",
    "pyarrow.pandas_compat",
    "capnet.contracts.parquet",
    "capnet.data.annotations.reading",
    "ijson.backends.yajl2_c",
)


@dataclass(frozen=True)
class Outcome:
    """``kind``: done, refused (a CapnetError, with its text), failed (another exception: its traceback) or died."""

    kind: str
    text: str = ""
    seconds: float = 0.0
    megabytes: int = 0

    @property
    def is_bounded(self) -> bool:
        return self.kind in ("done", "refused") and self.seconds < SECONDS and self.megabytes < GIGABYTE

    @property
    def has_three_parts(self) -> bool:
        return self.kind == "done" or ("where: " in self.text and "to do: " in self.text)


def bounded(call: Callable[[], object], megabytes: int = 3 * GIGABYTE // 2, seconds: float = 1.5 * SECONDS) -> Outcome:
    """Run ``call`` in a process of its own, in this folder and environment; killed after ``seconds``, and refused more
    than ``megabytes`` beyond what it begins with. What a test replaced in a module is not replaced there.
    """
    request = cloudpickle.dumps((call, megabytes, seconds, os.getcwd(), dict(os.environ)))
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        server.stdin.write(request)
        server.stdin.flush()
        return pickle.load(server.stdout)
    except BaseException:  # its next answer would be of this call
        server.kill()
        _server.cache_clear()
        raise


@cache
def _server() -> subprocess.Popen[bytes]:
    """One for each process of pytest; it ends with its standard input."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", "from faults.bounded import serve; serve()"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)


def serve() -> None:
    """Fork for every call and answer with its outcome. What a call refers to is imported once, here."""
    for name in SLOW:
        importlib.import_module(name)
    while True:
        try:
            call, megabytes, seconds, folder, environment = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        pickle.dump(_forked(call, megabytes, seconds, folder, environment), sys.stdout.buffer)
        sys.stdout.flush()


def _forked(
    call: Callable[[], object], megabytes: int, seconds: float, folder: str, environment: dict[str, str]
) -> Outcome:
    end, begin = os.pipe()
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        os.close(end)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # the pipes of requests and answers are not the call's
        os.dup2(2, 1)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        _run(call, begin, megabytes)
    os.close(begin)
    message = b""
    while time.monotonic() - started < seconds:
        if select.select([end], [], [], 0.2)[0]:
            part = os.read(end, 1 << 16)
            if not part:
                break
            message += part
    else:
        os.kill(child, signal.SIGKILL)
    os.close(end)
    _, status, _ = os.wait4(child, 0)
    took = time.monotonic() - started
    if not message:
        return Outcome("died", f"signal {os.WTERMSIG(status)}", took)
    kind, text, peak = pickle.loads(message)
    return Outcome(kind, text, took, peak)


def _run(call: Callable[[], object], pipe: int, megabytes: int) -> None:
    gc.disable()
    with open("/proc/self/statm") as file:
        pages, resident = map(int, file.read().split()[:2])
    page = resource.getpagesize()
    limit = pages * page + megabytes * 10**6
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak of this process begins here
    try:
        call()
        kind, text = "done", ""
    except CapnetError as error:
        kind, text = "refused", str(error)
    except BaseException:
        kind, text = "failed", traceback.format_exc()
    with open("/proc/self/status") as file:
        peak = next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))
    os.write(pipe, pickle.dumps((kind, text[-16000:], peak // 1024 - resident * page // 2**20)))
    os._exit(0)
