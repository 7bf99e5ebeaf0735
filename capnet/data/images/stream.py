"""Image files -> what a tower makes of them, in constant memory: the one path of training, evaluation and serving."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from capnet.data.images.loader import Batch, chunked, load_batches, named_worker_faults, require_good
from capnet.data.images.transform import Item, Transform
from capnet.data.images.views import to_tensor
from capnet.progress import in_threads
from capnet.runtime import Machine

BATCH_VIEWS = 8  # views per forward pass on a CPU: larger batches fall out of its cache (measured)
BATCH_VIEWS_CUDA = 256
Encode = Callable[[Tensor], Tensor]  # images [view, 3, size, size] -> [view, ...]


@dataclass(frozen=True)
class Part:
    """Some images: ``features`` float [image, view, ...] on the CPU of those without a fault, ``faults`` of all."""

    items: Sequence[Item]
    faults: list[str]
    features: Tensor


def stream(
    encode: Encode,
    items: Iterable[Item],
    root: Path,
    transform: Transform,
    machine: Machine,
    threads: int,
    total: int,
    concurrent: bool = False,
) -> Generator[Part, None, None]:
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
            tower that takes three quarters of the time of threads that share each batch, and gives the same bits
            (measured). ``encode`` then has to stand several callers.
    """
    step = _views_at_once(machine)
    chunks = chunked(items, step if machine.device.type == "cpu" else max(1, step // transform.views))
    side_by_side = concurrent and total * transform.views > step * threads  # else one thread would do it all
    with named_worker_faults():
        batches = load_batches(chunks, root, transform, machine, threads, total)
        yield from encode_batches(encode, batches, transform, machine, threads, side_by_side)


def encode_batches(
    encode: Encode,
    batches: Iterable[Batch],
    transform: Transform,
    machine: Machine,
    threads: int,
    concurrent: bool = False,
) -> Iterator[Part]:
    """``stream`` of images that are decoded.

    Args:
        encode, transform, machine, threads: as in ``stream``.
        batches: from ``load_batches``.
        concurrent: run as many forward passes at once as there are ``threads``; on a CPU only.

    Yields:
        One part for each batch, in order.
    """
    step = _views_at_once(machine)
    waiting: deque[Batch] = deque()
    done: list[Tensor] = []

    def views() -> Iterator[list[Tensor]]:
        for batch in batches:
            waiting.append(batch)
            yield from chunked(batch.views(machine.device), step)

    def forward(part: list[Tensor]) -> Tensor:
        return _forward(encode, to_tensor(part, transform.mean, transform.std), machine)

    def chunks_of(batch: Batch) -> int:
        return -(-len(batch.canvases) * transform.views // step)

    def complete() -> Iterator[Part]:
        while waiting and len(done) >= chunks_of(waiting[0]):
            batch = waiting.popleft()
            n = chunks_of(batch)
            features = _by_image(done[:n], transform.views)
            del done[:n]
            yield Part(batch.items, batch.faults, features)

    for output in _outputs(forward, views(), threads if concurrent and machine.device.type == "cpu" else 1):
        done.append(output)
        yield from complete()
    yield from complete()


def _views_at_once(machine: Machine) -> int:
    return BATCH_VIEWS if machine.device.type == "cpu" else BATCH_VIEWS_CUDA


def _by_image(outputs: Sequence[Tensor], views: int) -> Tensor:
    """[image, view, ...] of [view, ...] in some tensors."""
    whole = torch.cat(list(outputs)) if outputs else torch.empty(0)
    return whole.view(-1 if len(whole) else 0, views, *whole.shape[1:])


def passes(*encoders: Encode) -> Encode:
    """One encoder that gives what several do, [view, pass, ...], of images that are decoded once."""
    return lambda views: torch.stack([encode(views) for encode in encoders], dim=1)


def without_faults(parts: Iterable[Part], root: Path) -> Iterator[Part]:
    """The parts as they come.

    Args:
        parts: from ``stream``.
        root: folder of the images, for the message.

    Raises:
        DataError: a part has images that cannot be used; names them.
    """
    for part in parts:
        require_good(part.items, part.faults, root)
        yield part


def _outputs(
    forward: Callable[[list[Tensor]], Tensor], parts: Iterable[list[Tensor]], threads: int
) -> Iterator[Tensor]:
    """Float features [view, ...] of each part, in order, on the CPU; ``threads`` parts at a time."""
    if threads > 1:
        try:
            yield from in_threads(parts, lambda part: _alone(forward, part), threads, 2 * threads)
        finally:
            torch.set_num_threads(threads)
        return
    behind: Tensor | None = None
    for part in parts:
        output = forward(part)
        if behind is not None:
            yield behind.cpu()  # once the GPU has the next one to do
        behind = output
    if behind is not None:
        yield behind.cpu()


def _alone(forward: Callable[[list[Tensor]], Tensor], part: list[Tensor]) -> Tensor:
    """``forward`` in one thread of a pool, which has a number of torch threads of its own."""
    torch.set_num_threads(1)
    return forward(part)


@torch.no_grad()
def _forward(encode: Encode, views: Tensor, machine: Machine) -> Tensor:
    """``no_grad`` around it and not ``inference_mode``: with bf16 autocast the latter is many times slower on a CPU."""
    with machine.autocast():
        return encode(views).float()
