"""Image files -> batches of their pixels, decoded ahead in worker processes: the only loader there is.

A batch crosses from its worker through a pipe and not through /dev/shm, which has 64 MB in a container. It holds the
resized images, and the device cuts the views from them: five views have three times as many bytes.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing import active_children, parent_process
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Event, Thread, current_thread, main_thread
from types import FrameType
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from capnet.concurrency import deaf_children, in_threads
from capnet.data.images.decode import NO_MEMORY, READ_AGAIN, Unusable, is_transient
from capnet.data.images.transform import Item, Transform
from capnet.data.images.views import Canvas, unusable
from capnet.errors import CapnetError, DataError, Problem
from capnet.runtime import Machine

T = TypeVar("T")

AHEAD = 2  # batches for each worker that are decoded before they are needed
FEWEST = 32  # images for which processes are started


@dataclass
class Batch:
    """Images in order: their canvases, whose pixels lie in ``pixels`` uint8, and what is wrong with those that have
    none; ``unread``: numbers of those that the machine could not read.
    """

    items: Sequence[Item]
    faults: list[str]
    canvases: list[Canvas]
    pixels: Tensor | None = field(default=None, repr=False)
    unread: list[int] = field(default_factory=list)

    def pin_memory(self) -> Batch:
        """Pixels in memory that a GPU reads by itself; called by the loader."""
        if self.canvases:
            flat = torch.from_numpy(np.concatenate([canvas.pixels.ravel() for canvas in self.canvases]))
            self.pixels = flat.pin_memory()
        return self

    def views(self, device: torch.device) -> list[Tensor]:
        """Views uint8 [size, size, 3] of all images without a fault, one image after the other, on ``device``."""
        whole = None if self.pixels is None else self.pixels.to(device, non_blocking=True)
        result: list[Tensor] = []
        start = 0
        for canvas in self.canvases:
            end = start + canvas.pixels.size
            pixels = torch.from_numpy(canvas.pixels).to(device) if whole is None else whole[start:end]
            result += canvas.views(pixels.view(canvas.pixels.shape))
            start = end
        return result


@dataclass(frozen=True)
class _Images(Dataset[Batch]):
    """A data set whose index is a list of images, so that it holds none itself."""

    root: Path
    transform: Transform

    def __getitem__(self, items: Sequence[Item]) -> Batch:
        batch = Batch(items, [], [])
        for number, item in enumerate(items):
            try:
                batch.canvases.append(self.transform.canvas(self.root, item))
                batch.faults.append("")
            except Unusable as error:
                batch.faults.append(str(error))
                if is_transient(error):
                    batch.unread.append(number)
            except MemoryError:
                batch.faults.append(NO_MEMORY)
        return batch


def load_batches(
    chunks: Iterable[Sequence[Item]], root: Path, transform: Transform, machine: Machine, threads: int, total: int
) -> Iterator[Batch]:
    """Batches of images in the order of ``chunks``, decoded ahead by ``machine.workers`` processes.

    Threads of this process decode few images, and all where there are no workers. Neither changes a pixel.

    Args:
        chunks: the images of each batch.
        root: that their paths are relative to.
        transform: what is cut from them.
        machine: with the number of workers, and the device that the pixels go to.
        threads: that decode where no workers do.
        total: number of images.

    Raises:
        CapnetError: a worker was killed, or the machine could not read some images: without them a prediction would
            look like one of damaged files.
    """
    images, pin = _Images(root, transform), machine.device.type == "cuda"

    def finished(batch: Batch) -> Batch:
        if batch.unread:
            unread = [(batch.faults[number], str(root / batch.items[number].path)) for number in batch.unread]
            raise CapnetError(problems=[Problem(f"image {fault}", path, READ_AGAIN) for fault, path in unread])
        return batch.pin_memory() if pin else batch

    if not machine.workers or total < FEWEST:
        for batch in in_threads(chunks, images.__getitem__, threads, AHEAD * threads):
            yield finished(batch)
        return
    loader = DataLoader(
        images,
        batch_size=None,
        sampler=chunks,
        num_workers=machine.workers,
        prefetch_factor=AHEAD,
        multiprocessing_context="fork" if sys.platform == "linux" else None,
        worker_init_fn=_begin,
        generator=torch.Generator(),  # the global one belongs to the training
    )
    ended, others = Event(), set(active_children())
    with named_worker_faults():
        with deaf_children():
            batches = iter(loader)  # starts the workers
        workers = [item for item in active_children() if item not in others]
        if len(workers) < machine.workers:
            raise RuntimeError("DataLoader worker was ended at its start")
        _notice_ends()
        Thread(target=_wake, args=(ended,), daemon=True).start()
        try:
            while (loaded := _next(batches, workers)) is not None:
                # torch's own thread would wait for the rest of a killed worker's batch, and its loader for that thread
                yield finished(loaded)
        finally:
            ended.set()


def require_good(items: Sequence[Item], faults: Sequence[str], root: Path) -> None:
    """Refuse images that cannot be used.

    Args:
        items: images.
        faults: what is wrong with each; "" for none.
        root: folder of the images, for the message.

    Raises:
        DataError: some have a fault; names every one.
    """
    problems = [unusable(root / item.path, fault) for item, fault in zip(items, faults, strict=True) if fault]
    if problems:
        raise DataError(problems=problems)


@contextmanager
def named_worker_faults() -> Iterator[None]:
    """Say in three parts that a worker died; torch raises that in whatever the main thread is doing.

    Raises:
        CapnetError: a worker died.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        todo = "most often memory ran out: set runtime.workers lower (0: none), or give the task more memory"
        raise CapnetError(f"a process that decodes images was ended: {error}", "reading images", todo) from None


def chunked(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of ``size`` items; the last may be shorter."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


_awaited: list[BaseProcess] = []  # workers whose next batch the main thread waits for


def _next(batches: Iterator[Batch], workers: Sequence[BaseProcess]) -> Batch | None:
    _awaited[:] = workers
    try:
        return next(batches, None)
    finally:
        _awaited.clear()


def _notice_ends() -> None:
    """torch's handler raises the end of a worker once, in whatever the main thread is doing: this one says it in three
    parts there, too. Where that is swallowed, as by a library's import, and the worker was ended while it wrote,
    reading the rest would wait for ever: this handler raises it again.
    """
    previous = signal.getsignal(signal.SIGCHLD)
    if getattr(previous, "notices_ends", False) or current_thread() is not main_thread():
        return

    def handler(number: int, frame: FrameType | None) -> None:
        with named_worker_faults():
            if callable(previous):
                previous(number, frame)
            if ended := [item for item in _awaited if item.exitcode not in (None, 0)]:
                raise RuntimeError(f"DataLoader worker (pid {ended[0].pid}) was ended")

    handler.notices_ends = True  # type: ignore[attr-defined]
    signal.signal(signal.SIGCHLD, handler)


def _wake(ended: Event) -> None:
    """torch learns by a signal that a worker was killed. Where that comes just before the main thread begins to read
    the rest of the worker's batch, which will never come, nothing would end the wait: so the signal comes again.
    """
    while not ended.wait(1.0):
        signal.pthread_kill(main_thread().ident or 0, signal.SIGCHLD)


def _begin(worker: int) -> None:
    """What a worker does first. It ends with its parent: torch's own watch does not end a worker whose batch is still
    on its way into the pipe of a killed parent. And from here on, where torch expects it, Ctrl-C ends it at once: it
    would wait until its batch is read, which nobody does any more, and torch would wait five seconds for it.
    """
    parent = parent_process()  # as it was when this worker was started: it may have ended since then

    def watch() -> None:
        while parent is not None and os.getppid() == parent.pid:
            time.sleep(1)
        os._exit(1)

    Thread(target=watch, daemon=True).start()
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda *_: os._exit(0))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
