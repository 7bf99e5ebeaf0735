"""Read picture files once: size, hash, and whether they decode to the last byte."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from capnet.data.decode import FORMATS as FORMATS
from capnet.data.decode import Unusable, open_picture
from capnet.progress import track

T = TypeVar("T")


@dataclass(frozen=True)
class Picture:
    """One picture file: size in pixels and sha256 of its bytes, or ``fault``: why it cannot be used."""

    width: int = 0
    height: int = 0
    sha256: str = ""
    fault: str = ""


def map_pictures(function: Callable[[Path], T], paths: Sequence[Path], description: str, threads: int | None = None) -> list[T]:
    """``function`` of every path, in order, on a few threads (Pillow and hashlib let go of the lock), with a progress bar."""
    with ThreadPoolExecutor(threads or min(8, os.cpu_count() or 1)) as pool:
        return list(track(pool.map(function, paths), description, len(paths)))


def inspect_picture(path: Path) -> Picture:
    """Decode a picture to its last byte: a truncated file is found here and not in the middle of a training run."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return Picture(fault="missing")
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        return Picture(fault=f"cannot be read: {error}")
    try:
        with open_picture(data) as image:
            width, height = image.size
            image.draft("L", (max(1, width // 8), max(1, height // 8)))  # JPEG: all bytes are still read, pixels cost less
            image.load()
    except Unusable as error:
        return Picture(fault=str(error))
    except Exception as error:  # damaged bytes can raise nearly anything in a decoder
        return Picture(fault=f"does not decode: {error}")
    return Picture(width, height, hashlib.sha256(data).hexdigest())
