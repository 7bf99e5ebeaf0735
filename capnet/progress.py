"""Progress with the time left: a bar on a terminal, elsewhere now and then a line in the log. And work
ahead in threads, silence, standard streams that are closed, and Ctrl-C in other processes."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol, TypeVar

EVERY_SECONDS = 30.0  # between two lines in a log

T = TypeVar("T")
R = TypeVar("R")
log = logging.getLogger(__name__)


class Advance(Protocol):
    def __call__(self, steps: int = 1, *, note: str = "") -> None: ...


@contextmanager
def bar(description: str, total: int, *, stays: bool = True) -> Iterator[Advance]:
    """A bar on stderr; call what it yields after each step. ``note`` is shown after the description. A bar of a single
    step only says that work goes on: it leaves no line behind, and neither does a bar without ``stays``.

    Without a terminal: lines of level INFO, which pods and pipelines show, and the command line by ``show_lines``.
    """
    if not sys.stderr.isatty():
        yield _lines(description, total)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=total == 1 or not stays) as progress:
        task = progress.add_task(description, total=total)

        def advance(steps: int = 1, *, note: str = "") -> None:
            progress.update(task, advance=steps, description=f"{description} {note}".rstrip())

        yield advance


def _lines(description: str, total: int) -> Advance:
    """Log how far it is and how long the rest will take; the pace counts from the first call, which may bring what an
    earlier run did.
    """
    first: tuple[float, int] | None = None
    reported, done = time.monotonic(), 0

    def advance(steps: int = 1, *, note: str = "") -> None:
        nonlocal first, reported, done
        now, done = time.monotonic(), done + steps
        if first is None:
            first = (now, done)
        if now - reported < EVERY_SECONDS or done == first[1]:
            return
        reported = now
        left = (now - first[0]) / (done - first[1]) * (total - done)
        log.info(
            "%s: %d of %d, about %s left",
            f"{description} {note}".rstrip(),
            done,
            total,
            f"{left:.0f} s" if left < 100 else f"{left / 60:.0f} min",
        )

    return advance


def note(text: str) -> None:
    """A line where there is no bar that shows the same."""
    if not sys.stderr.isatty():
        log.info(text)


def show_lines() -> None:
    """From now on the lines of ``bar`` and ``note`` are written to stderr, whatever else is logged."""
    log.addHandler(logging.StreamHandler())
    log.setLevel(logging.INFO)
    log.propagate = False


def open_closed_streams() -> None:
    """A closed standard stream (`2>&-` in a crontab, a daemon) becomes os.devnull: otherwise writing to it fails, and
    the next file that is opened has its number and gets what libraries write to it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:  # as Python says it
            handle = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
            os.set_inheritable(handle, True)
            setattr(sys, name, open(handle, "w" if number else "r"))  # noqa: SIM115


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


def track(items: Iterable[T], description: str, total: int) -> Iterator[T]:
    """Iterate with a bar.

    Args:
        items: to go over.
        description: in front of the bar.
        total: number of items.
    """
    with bar(description, total) as advance:
        for item in items:
            yield item
            advance()


def in_threads(items: Iterable[T], function: Callable[[T], R], threads: int, ahead: int) -> Iterator[R]:
    """Results of a function, in order, computed before they are needed.

    Args:
        items: read as far ahead as results are computed.
        function: of one item; what it raises is raised at the item's turn.
        threads: that run it.
        ahead: results that may wait at once.
    """
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[R]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:  # an error, or nobody wants the rest
                future.cancel()


@contextmanager
def deaf_children() -> Iterator[None]:
    """Processes that are started in here never see Ctrl-C, from their first moment on: whoever started them ends
    them.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
