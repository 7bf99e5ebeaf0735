"""Progress bars with the time left: shown on a terminal, silent elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

T = TypeVar("T")


class Advance(Protocol):
    def __call__(self, steps: int = 1, *, note: str = "") -> None: ...


@contextmanager
def bar(description: str, total: int) -> Iterator[Advance]:
    """A bar on stderr; call what it yields after each step (``note`` is shown behind the description)."""
    if not sys.stderr.isatty():
        yield lambda steps=1, *, note="": None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(description, total=total)

        def advance(steps: int = 1, *, note: str = "") -> None:
            progress.update(task, advance=steps, description=f"{description} {note}".rstrip())

        yield advance


def track(items: Iterable[T], description: str, total: int) -> Iterator[T]:
    """Iterate with a bar."""
    with bar(description, total) as advance:
        for item in items:
            yield item
            advance()
