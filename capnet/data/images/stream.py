"""Image files -> what a tower makes of them, in constant memory: the one path of training, evaluation and serving."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from capnet.concurrency import in_threads
from capnet.data.images.loader import Batch, chunked, load_batches, named_worker_faults, require_good
from capnet.data.images.transform import Item, Transform
from capnet.data.images.views import to_tensor
from capnet.runtime import Machine

BATCH_VIEWS = 8  # views per forward pass on a CPU: larger batches fall out of its cache (measured)
BATCH_VIEWS_CUDA = 256
Encode = Callable[[Tensor], Tensor]  # images [view, 3, size, size] -> [view, ...]
# views of a forward pass, and features [view, ...]; with the last ones of a batch, the batch
Work = tuple[list[Tensor], Batch | None]
Output = tuple[Tensor, Batch | None]


@dataclass(frozen=True)
class EncodedBatch:
    """Some images: ``features`` float [image, view, ...] on the CPU and ``brightest`` (see Canvas) of those without a
    fault, ``faults`` of all.
    """

    items: Sequence[Item]
    faults: list[str]
    features: Tensor
    brightest: list[int | None]


def stream(
    encode: Encode,
    items: Iterable[Item],
    root: Path,
    transform: Transform,
    machine: Machine,
    threads: int,
    total: int,
    concurrent: bool = False,
) -> Generator[EncodedBatch, None, None]:
    """``encode`` of every view of every image, in order, some images at a time.

    Args:
        encode: a tower; one that gives [view, pass, pooled] makes several passes over what is decoded once.
        items: images below ``root``.
        root: a folder.
        transform: the views.
        machine: device, precision and workers.
        threads: of the CPU.
        total: number of images.
        concurrent: a CPU runs as many batches at once as it has threads, each in one of them: for a small convolutional
            tower that takes three quarters of the time of threads that share each batch, which in fp32 round in another
            way (measured). ``encode`` then has to stand several callers.
    """
    step = views_at_once(machine)
    chunks = chunked(items, step if machine.device.type == "cpu" else max(1, step // transform.views))
    with named_worker_faults():
        batches = load_batches(chunks, root, transform, machine, threads, total)
        yield from encode_batches(encode, batches, transform, machine, threads, concurrent)


def fills_threads(total: int, transform: Transform, machine: Machine, threads: int) -> bool:
    """Whether so many images make more than one batch for each thread: with fewer, one thread would do nearly all."""
    return total * transform.views > views_at_once(machine) * threads


def encode_batches(
    encode: Encode,
    batches: Iterable[Batch],
    transform: Transform,
    machine: Machine,
    threads: int,
    concurrent: bool = False,
) -> Iterator[EncodedBatch]:
    """``stream`` of images that are decoded.

    Args:
        encode, transform, machine, threads: as in ``stream``.
        batches: from ``load_batches``.
        concurrent: run as many forward passes at once as there are ``threads``; on a CPU only.

    Yields:
        One for each batch, in order.
    """
    step = views_at_once(machine)

    def work() -> Iterator[Work]:
        for batch in batches:
            *first, last = [*chunked(batch.views(machine.device), step)] or [[]]
            yield from ((views, None) for views in first)
            yield last, batch

    def forward(one: Work) -> Output:
        views, batch = one
        if not views:  # no image of the batch can be used
            return torch.empty(0), batch
        return _forward(encode, to_tensor(views, transform.mean, transform.std), machine), batch

    at_once = threads if concurrent and machine.device.type == "cpu" else 1
    done: list[Tensor] = []
    for output, batch in _outputs(forward, work(), at_once):
        done.append(output)
        if batch is not None:
            features = torch.cat(done)
            by_image = features.view(-1, transform.views, *features.shape[1:])
            yield EncodedBatch(batch.items, batch.faults, by_image, [canvas.brightest for canvas in batch.canvases])
            done = []


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread of torch for what little is computed while passes run in threads of their own: several would wait for
    the cores that those use.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def views_at_once(machine: Machine) -> int:
    """Views of a forward pass."""
    return BATCH_VIEWS if machine.device.type == "cpu" else BATCH_VIEWS_CUDA


def passes(*encoders: Encode) -> Encode:
    """One encoder that gives what several do, [view, pass, ...], of images that are decoded once."""
    return lambda views: torch.stack([encode(views) for encode in encoders], dim=1)


def without_faults(batches: Iterable[EncodedBatch], root: Path) -> Iterator[EncodedBatch]:
    """The batches as they come.

    Args:
        batches: from ``stream``.
        root: folder of the images, for the message.

    Raises:
        DataError: a batch has images that cannot be used; names them.
    """
    for batch in batches:
        require_good(batch.items, batch.faults, root)
        yield batch


def _outputs(forward: Callable[[Work], Output], work: Iterable[Work], at_once: int) -> Iterator[Output]:
    """What ``forward`` makes of each work, in order, on the CPU; ``at_once`` of them at a time."""
    if at_once > 1:

        def alone(one: Work) -> Output:
            torch.set_num_threads(1)  # each thread of a pool has a number of its own
            return forward(one)

        try:
            yield from in_threads(work, alone, at_once, 2 * at_once)
        finally:
            torch.set_num_threads(at_once)
        return
    previous: Output | None = None
    for one in work:
        output = forward(one)
        if previous is not None:
            yield previous[0].cpu(), previous[1]  # once the GPU has the next one to do
        previous = output
    if previous is not None:
        yield previous[0].cpu(), previous[1]


@torch.no_grad()
def _forward(encode: Encode, views: Tensor, machine: Machine) -> Tensor:
    """``no_grad`` around it and not ``inference_mode``: with bf16 autocast the latter is many times slower on a CPU."""
    with machine.autocast():
        return encode(views).float()
