"""`capnet ...` in a fork of this process, which has imported what is slow: a process of its own that can be limited and
killed.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from capnet.__main__ import entry


def begin(folder: Path, *arguments: str, limit: Callable[[], None] | None = None) -> int:
    """Start `capnet` with ``arguments`` in ``folder``; its output goes to the files out and err beside the folder.

    ``limit`` is called first, in the new process. Returns the process's id.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # until the command begins
    ready, not_yet = os.pipe()
    child = os.fork()
    os.close(not_yet if child else ready)
    if child:
        os.read(ready, 1)  # until the command has a session that a signal can be sent to
        os.close(ready)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        return child
    code, has_begun = 99, False
    try:
        os.setsid()
        os.close(not_yet)
        os.chdir(folder)
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(folder.parent / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.argv = ["capnet", *arguments]
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        if limit is not None:
            limit()
        if torch := sys.modules.get("torch"):  # a fork has none of the threads that OpenMP would wait for
            torch.set_num_threads(1)
            torch.set_num_threads = lambda threads: None
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        has_begun = True
        entry()
        code = 0
    except SystemExit as ended:
        code = int(ended.code or 0)
    except KeyboardInterrupt:
        code = 130
        if has_begun:
            traceback.print_exc()
    except BaseException:
        traceback.print_exc()
    finally:
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def end(child: int, seconds: float = 300.0) -> int:
    """Its exit code; minus the signal that it died of. Fails, and kills it, where it runs on after ``seconds``."""
    until = time.monotonic() + seconds
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > until:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise AssertionError(f"the command runs on after {seconds:g} seconds")
        time.sleep(0.01)
    return os.waitstatus_to_exitcode(ended[1])


def output_of(folder: Path) -> str:
    """What the last command in ``folder`` wrote to its standard error."""
    return (folder.parent / "err").read_text()


def survivors(child: int, seconds: float = 5.0) -> list[tuple[int, str]]:
    """Id and name of the processes that a command which has ended started, and that run on after ``seconds``."""
    until = time.monotonic() + seconds
    while (result := of_session(child)) and time.monotonic() < until:
        time.sleep(0.05)
    return result


def of_session(child: int) -> list[tuple[int, str]]:
    """Id and name of a command's process and of those that it started, as long as they run."""
    result = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            head, _, rest = path.read_text().rpartition(") ")
            threads = len(os.listdir(path.parent / "task"))
        except OSError:  # it has just ended
            continue
        state, _, _, session = rest.split()[:4]
        if int(session) == child and (state != "Z" or threads > 1):  # others of its threads may still end
            number, _, name = head.partition(" (")
            result.append((int(number), name))
    return result
