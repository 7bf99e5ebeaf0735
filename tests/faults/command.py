"""`capnet ...` in a fork of this process, which has imported what is slow: a process of its own that can be limited and
killed.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path


def begin(folder: Path, *arguments: str, limit: Callable[[], None] | None = None) -> int:
    """Start `capnet` with ``arguments`` in ``folder``; its output goes to the files out and err beside the folder.

    ``limit`` is called first, in the new process. Returns the process's id.
    """
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        os.setsid()
        os.chdir(folder)
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(folder.parent / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.argv = ["capnet", *arguments]
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        if limit is not None:
            limit()
        from capnet.cli import entry

        entry()
        code = 0
    except SystemExit as ended:
        code = int(ended.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def end(child: int) -> int:
    """Its exit code; minus the signal that it died of."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def said(folder: Path) -> str:
    """What the last command in ``folder`` wrote to its standard error."""
    return (folder.parent / "err").read_text()
