"""Standard streams that are closed, the message of a sudden end, and loggers that are quiet for a while."""

from __future__ import annotations

import faulthandler
import io
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress


def open_closed_streams() -> None:
    """A closed standard stream (`2>&-` in a crontab, a daemon) becomes os.devnull: otherwise writing to it fails, and
    the next file that is opened has its number and gets what libraries write to it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:  # as Python says it
            handle = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
            os.set_inheritable(handle, True)
            setattr(sys, name, open(handle, "w" if number else "r"))  # noqa: SIM115


def escape_output() -> None:
    """Letters that standard output cannot show (`PYTHONIOENCODING=ascii`) are written as numbers, as on standard error:
    the name of a class must not end a command.
    """
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def name_sudden_end() -> None:
    """Where the system ends this process, standard error gets the signal and the lines of code: SIGBUS when a file that
    it maps, as the feature store's, is shortened or its disk fails; SIGABRT when a library gets no thread.
    """
    if not faulthandler.is_enabled():
        with suppress(OSError, ValueError, AttributeError, RuntimeError):  # standard error is no file
            faulthandler.enable(all_threads=False)


@contextmanager
def quiet(levels: Mapping[str, int]) -> Iterator[None]:
    """Loggers with other levels for a while.

    Args:
        levels: by the logger's name; "" for the root, which then also loses the handlers that a library adds meanwhile,
            as ``logging.info`` does: they would put level and name in front of every later warning.
    """
    root = logging.getLogger()
    handlers = list(root.handlers)
    before = {name: logging.getLogger(name).level for name in levels}
    try:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
        for handler in [handler for handler in root.handlers if "" in levels and handler not in handlers]:
            root.removeHandler(handler)
