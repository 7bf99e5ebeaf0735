"""Work ahead in threads, and other processes that Ctrl-C does not reach."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


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
