"""A pool of processes that outlives a crash: an item at which one dies is that item's fault, not the end of the run."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context
from typing import TypeVar

from capnet.concurrency import deaf_children
from capnet.errors import CapnetError
from capnet.progress import track

A = TypeVar("A")
B = TypeVar("B")
CHUNK = 8  # images sent to a process at once; Ctrl-C waits for them
FEW = 256  # up to so many items a pool costs more than it saves
MOST_PROCESSES = 16
DIED = (BrokenProcessPool, OSError, ValueError)  # the latter two: of the pipes to a process that has just gone


def in_processes(
    function: Callable[[A], B], items: Sequence[A], processes: int, description: str, crashed: B
) -> list[B]:
    """Results of a function, computed by several processes.

    Args:
        function: must raise nothing, and be picklable.
        items: up to FEW of them are computed in this process.
        processes: 0: one for each core that this process may use, MOST_PROCESSES at most.
        description: of the progress bar.
        crashed: result for an item at which a process dies.

    Returns:
        In the order of ``items``.

    Raises:
        CapnetError: no process can be started.
    """
    from capnet.runtime import cores  # not in each of the processes

    workers = processes or min(MOST_PROCESSES, cores())
    return list(track(_computed(function, items, workers, crashed), description, len(items)))


def _computed(function: Callable[[A], B], items: Sequence[A], workers: int, crashed: B) -> Iterator[B]:
    if workers == 1 or len(items) <= FEW:
        yield from map(function, items)
        return
    done = 0
    try:
        with _pool(min(workers, math.ceil(len(items) / CHUNK))) as pool:
            with deaf_children():
                results = pool.map(function, items, chunksize=CHUNK)
            for result in results:
                yield result
                done += 1
    except DIED:
        yield from _one_by_one(function, items[done:], crashed)


@contextmanager
def _pool(processes: int) -> Iterator[ProcessPoolExecutor]:
    # spawned: a forked process can hang on a lock that a thread of ours held
    pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"))
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)  # Ctrl-C waits for the chunks at work


def _one_by_one(function: Callable[[A], B], items: Sequence[A], crashed: B) -> Iterator[B]:
    """One process computes the items in turn, and another takes its place where it dies: only the item at which it died
    gets ``crashed``.
    """
    done = 0
    while done < len(items):
        with ExitStack() as stack:
            try:
                pool = stack.enter_context(_pool(1))
                with deaf_children():
                    pid = pool.submit(os.getpid)
                pid.result()
            except DIED:
                todo = "set validate.processes: 1; a script must call stages below `if __name__ == '__main__':`"
                raise CapnetError("no worker process can be started", "validate", todo) from None
            try:
                for item in items[done:]:
                    result = pool.submit(function, item).result()
                    done += 1
                    yield result
            except DIED:
                done += 1
                yield crashed
