"""Read image files once: size, hash, and whether they decode to the last byte."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from capnet.concurrency import in_threads
from capnet.data.images.dark import brightest, is_deep
from capnet.data.images.decode import (
    READ_AGAIN,
    Unusable,
    decoder_faults,
    file_faults,
    is_transient,
    open_image,
    to_rgb,
)
from capnet.data.images.shards import read_bytes
from capnet.errors import CapnetError, Problem
from capnet.progress import track
from capnet.runtime import cores

AHEAD = 64  # images per thread that are read before they are asked for


@dataclass(frozen=True, slots=True)
class ImageFile:
    """One image file: stored size in pixels, sha256 of its bytes and ``dhash`` (where these were asked for), or
    ``fault``: why it cannot be used, with ``is_transient`` where it may be the machine's and the image good.
    ``brightest``: the largest value of decoded pixels of 16 bits, None for others.
    """

    width: int = 0
    height: int = 0
    sha256: str = ""
    fault: str = ""
    dhash: bytes = b""
    brightest: int | None = None
    is_transient: bool = False


def inspect_image(path: Path, decode: bool = True) -> ImageFile:
    """Read an image file.

    Args:
        path: of an image, in a file or a shard.
        decode: to its last byte: a truncated file is found here and not in the middle of a training run. Without it,
            size and hash only: many times faster, and blind to damage behind the header.
    """
    try:
        with file_faults():
            data = read_bytes(path)
        with decoder_faults(), open_image(data) as image:
            width, height = image.size
            value = None
            if decode:
                deep = is_deep(image)
                # JPEG: all bytes are still read, pixels cost less
                image.draft("L", (max(1, width // 8), max(1, height // 8)))
                image.load()
                value = brightest(image, deep)
                to_rgb(image.crop((0, 0, 1, 1)))  # a palette can be such that pixels decode and have no colour
    except Unusable as error:
        return ImageFile(fault=str(error), is_transient=is_transient(error))
    return ImageFile(width, height, hashlib.sha256(data).hexdigest(), brightest=value)


def inspect_images(root: Path, paths: Sequence[str], decode: bool = True) -> Iterator[ImageFile]:
    """Read image files in threads, with progress.

    Args:
        root: folder that the paths are relative to.
        paths: of the images.
        decode: as in ``inspect_image``.
    """
    threads = min(8, cores())  # Pillow and hashlib let go of the lock
    inspect = partial(inspect_image, decode=decode)
    read = in_threads((root / path for path in paths), inspect, threads, AHEAD * threads)
    return track(read, "reading images", len(paths))


def file_states(root: Path, paths: Sequence[str]) -> np.ndarray:
    """What changes where a file is replaced.

    Args:
        root: folder that the paths are relative to.
        paths: of images.

    Returns:
        int64 [image, 2]: size and time of change of each file; -1 where none is, and for an image in a shard.
    """

    def state(path: Path) -> tuple[int, int]:
        with suppress(OSError, ValueError):
            about = os.stat(path)
            return about.st_size, about.st_mtime_ns
        return -1, -1

    threads = min(8, cores())
    states = in_threads((root / path for path in paths), state, threads, AHEAD * threads)
    return np.fromiter(states, dtype=np.dtype((np.int64, 2)), count=len(paths))


def require_read(images: Sequence[ImageFile], paths: Sequence[str], where: Callable[[int], str]) -> None:
    """Refuse to go on without images that the machine did not read, and that may be good.

    Args:
        images: what was read.
        paths: of the images, for the message.
        where: gives the line that names an image, by its number.

    Raises:
        CapnetError: there are some; names every one.
    """
    problems = [
        Problem(f"image {paths[number]!r}: {image.fault}", where(number), READ_AGAIN)
        for number, image in enumerate(images)
        if image.is_transient
    ]
    if problems:
        raise CapnetError(problems=problems)
