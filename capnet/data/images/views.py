"""Pictures -> tensors: decoding in threads, test-time and training views."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from capnet.data.images.decode import Unusable, open_image, to_rgb
from capnet.data.images.shards import file_or_bytes
from capnet.errors import DataError

T = TypeVar("T")

MIN_AREA = 0.5  # smallest share of the picture in a random training view
PADDING = (127, 127, 127)  # mid grey
LONGEST_PADDED = 8192  # pixels; a square of that side is 0.3 GB
FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def load_rgb(path: Path) -> Image.Image:
    """Decode a whole picture, of a file or in a shard, as capnet.data.images.decode.to_rgb says.

    Raises DataError naming the file where it cannot be used.
    """
    try:
        with open_image(file_or_bytes(path)) as image:
            return to_rgb(image)
    except (Unusable, OSError, ValueError) as error:
        reason = "missing" if isinstance(error, FileNotFoundError) else error
        raise DataError(
            f"cannot use the picture: {reason}", str(path), "replace the file, or take its row out of the label table"
        ) from None


def centre_index(views: int) -> int:
    """Position of the centre crop among the test-time views."""
    return {1: 0, 5: 4, 10: 4}[views]


def padded(image: Image.Image) -> Image.Image:
    """The picture in the middle of a square of its longer side, reduced first where that would fill the memory."""
    if max(image.size) > LONGEST_PADDED:
        image = image.copy()
        image.thumbnail((LONGEST_PADDED, LONGEST_PADDED))
    side = max(image.size)
    square = Image.new("RGB", (side, side), PADDING)
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def test_views(
    image: Image.Image, size: int, views: int, expand: int, interpolation: str, resize: str
) -> list[Image.Image]:
    """Crops of ``size`` px from the picture whose shorter side is resized to ``size + expand``.

    1 view: centre; 5: four corners and centre; 10: and mirrored (LIFT's test-time ensembling, expand 24). ``resize``:
    pad shows all of the picture in a square, squash distorts it into one.
    """
    if resize == "pad":
        image = padded(image)
    width, height = image.size if resize != "squash" else (1, 1)
    scale = (size + expand) / min(width, height)
    width, height = max(size, round(width * scale)), max(size, round(height * scale))
    image = image.resize((width, height), FILTERS[interpolation])
    right, bottom = width - size, height - size
    centre = (right // 2, bottom // 2)
    corners = [centre] if views == 1 else [(0, 0), (right, 0), (0, bottom), (right, bottom), centre]
    crops = [image.crop((x, y, x + size, y + size)) for x, y in corners]
    return crops if views < 10 else crops + [crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for crop in crops]


def random_view(
    image: Image.Image, size: int, interpolation: str, rng: np.random.Generator, resize: str = "short"
) -> Image.Image:
    """A random resized crop of ``size`` px (area MIN_AREA to 1, aspect 3/4 to 4/3), mirrored half of the time.

    With ``resize`` pad or squash the crop is one of the square that the picture becomes.
    """
    if resize == "pad":
        image = padded(image)
    stretch = image.width / image.height if resize == "squash" else 1.0  # squash: heights count in units of the width
    width, height = image.width, image.height * stretch
    box = (0.0, 0.0, float(image.width), float(image.height))
    for _ in range(10):
        area = width * height * rng.uniform(MIN_AREA, 1.0)
        aspect = float(np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3))))
        w, h = (area * aspect) ** 0.5, (area / aspect) ** 0.5
        if w <= width and h <= height:
            x, y = rng.uniform(0, width - w), rng.uniform(0, height - h)
            box = (x, y / stretch, x + w, (y + h) / stretch)
            break
    mirrored = rng.random() < 0.5
    view = image.resize((size, size), FILTERS[interpolation], box=box)
    return view.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else view


def to_tensor(views: Sequence[Image.Image], mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Float tensor [view, 3, height, width], normalised, in channels-last memory (twice as fast on a CPU).

    NumPy's arithmetic and not torch's: called from several threads, torch would give each of them helpers that spin on
    the processors which the towers need.
    """
    stacked = np.stack([np.asarray(view) for view in views])  # [view, height, width, 3] uint8
    deviation = np.asarray(std, dtype=np.float32)
    values = stacked * (np.float32(1.0) / (np.float32(255.0) * deviation))
    values -= np.asarray(mean, dtype=np.float32) / deviation
    return torch.from_numpy(values).permute(0, 3, 1, 2)


def in_threads(items: Iterable[T], function: Callable[[T], Tensor], threads: int, ahead: int = 8) -> Iterator[Tensor]:
    """``function`` of each item, in order, computed up to ``ahead`` items before they are needed."""
    with ThreadPoolExecutor(threads) as pool:
        waiting = []
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > ahead:
                yield waiting.pop(0).result()
        for future in waiting:
            yield future.result()
