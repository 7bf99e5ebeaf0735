"""Progress with the time left: a bar on a terminal, elsewhere now and then a line in the log."""

from __future__ import annotations

import logging
import math
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

EVERY_SECONDS = 30.0  # between two lines in a log, whichever bars write them

T = TypeVar("T")
log = logging.getLogger(__name__)


class Advance(Protocol):
    def __call__(self, steps: int = 1, *, note: str = "") -> None: ...


@contextmanager
def bar(description: str, total: int, *, stays: bool = True) -> Iterator[Advance]:
    """A bar on stderr; call what it yields after each step. ``note`` is shown after the description. A bar of a single
    step only says that work goes on: it leaves no line behind, and neither does one that ended without a step or is
    without ``stays``.

    Without a terminal: lines of level INFO, which pods and pipelines show, and the command line by ``show_lines``.
    """
    if not sys.stderr.isatty():
        yield _lines(description, total, stays)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Live(), Progress(*columns, console=Console(stderr=True), transient=total == 1 or not stays) as progress:
        task = progress.add_task(description, total=total)

        def advance(steps: int = 1, *, note: str = "") -> None:
            progress.update(task, advance=steps, description=f"{description} {note}".rstrip())

        yield advance
        progress.live.transient |= not progress.tasks[0].completed


@contextmanager
def waiting(description: str) -> Iterator[None]:
    """A spinner on a terminal for seconds of unknown work, such as loading a library; in a log, in a thread, in further
    processes of torchrun, and within a bar or another spinner, nothing.
    """
    is_further = os.environ.get("LOCAL_RANK", "0") != "0" or threading.current_thread() is not threading.main_thread()
    if Live.shown or is_further or not sys.stderr.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        yield
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn

    columns, console = (SpinnerColumn(), TextColumn("{task.description}")), Console(stderr=True)
    # stderr itself stays as it is: log handlers of a library that is imported here keep it
    progress = Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False)
    progress.add_task(description, total=None)
    with Live(), progress:
        yield


class Live:
    """While a bar or a spinner is on the terminal: a spinner would write over it."""

    shown = 0

    def __enter__(self) -> None:
        Live.shown += 1

    def __exit__(self, *_: object) -> None:
        Live.shown -= 1


class LastLine:
    """When a bar last wrote a line, or the first one began: many short bars must not be silent together."""

    at = math.inf


def _lines(description: str, total: int, stays: bool) -> Advance:
    """Log how far it is and how long the rest will take; the pace counts from the first call, which may bring what an
    earlier run did. A bar that does not stay is part of other work, and waits from its own beginning.
    """
    first: tuple[float, int] | None = None
    began, done = time.monotonic(), 0
    LastLine.at = min(LastLine.at, began)

    def advance(steps: int = 1, *, note: str = "") -> None:
        nonlocal first, done
        now, done = time.monotonic(), done + steps
        if first is None:
            first = (now, done)
        silent_since = LastLine.at if stays else max(LastLine.at, began)
        if now - silent_since < EVERY_SECONDS or done == first[1]:
            return
        LastLine.at = now
        left = (now - first[0]) / (done - first[1]) * (total - done)
        rest = f", about {left:.0f} s left" if left < 100 else f", about {left / 60:.0f} min left"
        is_known = now - first[0] >= EVERY_SECONDS / 6  # a bar that follows long work has hardly begun
        log.info("%s: %d of %d%s", f"{description} {note}".rstrip(), done, total, rest if is_known else "")

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
