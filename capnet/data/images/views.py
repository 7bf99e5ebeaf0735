"""Views of an image: what is cut from its pixels at test time and in training, and as a tower takes it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from capnet.errors import Problem

MIN_AREA = 0.5  # smallest share of the image in a random training view
ASPECTS = (3 / 4, 4 / 3)  # of a random training view
PADDING = (127, 127, 127)  # mid grey
LONGEST_PADDED = 8192  # pixels; a square of that side is 0.3 GB
FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


class Cut(NamedTuple):
    """Where a view lies: its left column, its upper row, and whether it is mirrored."""

    x: int
    y: int
    mirrored: bool = False


@dataclass(frozen=True)
class Canvas:
    """Pixels uint8 [height, width, 3] of an image, and the ``cuts`` of ``size`` px that are its views; ``brightest``:
    the largest value of a file of 16 bits, None for others and for random views.
    """

    pixels: np.ndarray
    cuts: tuple[Cut, ...]
    size: int
    brightest: int | None = None

    def views(self, pixels: Tensor) -> list[Tensor]:
        """Each view, uint8 [size, size, 3], of the canvas's pixels wherever these lie."""
        crops = [(pixels[y : y + self.size, x : x + self.size], mirrored) for x, y, mirrored in self.cuts]
        return [crop.flip(1) if mirrored else crop for crop, mirrored in crops]


def unusable(path: Path, fault: str) -> Problem:
    """The problem of one file."""
    todo = "replace the file, or take its row out of the label table"
    return Problem(f"cannot use the picture: {fault}", str(path), todo)


def centre_index(views: int) -> int:
    """Position of the centre crop among the test-time views."""
    return {1: 0, 5: 4, 10: 4}[views]


def padded(image: Image.Image) -> Image.Image:
    """The image in the middle of a square of its longer side, reduced first where that would fill the memory."""
    if max(image.size) > LONGEST_PADDED:
        image = image.copy()
        image.thumbnail((LONGEST_PADDED, LONGEST_PADDED))
    side = max(image.size)
    square = Image.new("RGB", (side, side), PADDING)
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def test_canvas(image: Image.Image, size: int, views: int, expand: int, interpolation: str, resize: str) -> Canvas:
    """Test-time crops of an image.

    The canvas is the resized image, or only the crops where these have fewer pixels, so that a panorama is as small
    as any other.

    Args:
        image: RGB.
        size: width and height of a view in pixels.
        views: 1: centre; 5: four corners and centre; 10: and mirrored (LIFT's test-time ensembling, expand 24).
        expand: pixels by which the resized image is larger than a view.
        interpolation: a key of FILTERS.
        resize: short makes the shorter side ``size + expand``, pad shows all of the image in a square, squash
            distorts it into one.
    """
    if resize == "pad":
        image = padded(image)
    width, height = image.size if resize != "squash" else (1, 1)
    scale = (size + expand) / min(width, height)
    width, height = max(size, round(width * scale)), max(size, round(height * scale))
    pixels = np.array(image.resize((width, height), FILTERS[interpolation]))
    right, bottom = width - size, height - size
    centre = (right // 2, bottom // 2)
    corners = [centre] if views == 1 else [(0, 0), (right, 0), (0, bottom), (right, bottom), centre]
    if len(corners) * size * size < width * height:
        pixels = np.concatenate([pixels[y : y + size, x : x + size] for x, y in corners])
        corners = [(0, number * size) for number in range(len(corners))]
    mirrored = (False, True) if views == 10 else (False,)
    return Canvas(pixels, tuple(Cut(x, y, mirror) for mirror in mirrored for x, y in corners), size)


def random_view(
    image: Image.Image, size: int, interpolation: str, rng: np.random.Generator, resize: str = "short"
) -> Image.Image:
    """A random resized crop (area MIN_AREA to 1, aspect 3/4 to 4/3), mirrored half of the time.

    Args:
        image: RGB.
        size: width and height of the view in pixels.
        interpolation: a key of FILTERS.
        rng: that the crop is drawn from.
        resize: with pad or squash the crop is one of the square that the image becomes.
    """
    if resize == "pad":
        image = padded(image)
    stretch = image.width / image.height if resize == "squash" else 1.0  # squash: heights count in units of the width
    width, height = image.width, image.height * stretch
    box = (0.0, 0.0, float(image.width), float(image.height))
    for _ in range(10):
        area = width * height * rng.uniform(MIN_AREA, 1.0)
        aspect = float(np.exp(rng.uniform(np.log(ASPECTS[0]), np.log(ASPECTS[1]))))
        w, h = (area * aspect) ** 0.5, (area / aspect) ** 0.5
        if w <= width and h <= height:
            x, y = rng.uniform(0, width - w), rng.uniform(0, height - h)
            box = (x, y / stretch, x + w, (y + h) / stretch)
            break
    mirrored = rng.random() < 0.5
    view = image.resize((size, size), FILTERS[interpolation], box=box)
    return view.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else view


def needed_size(image_size: tuple[int, int], size: int, resize: str, random: bool) -> tuple[int, int]:
    """To which size an image may be reduced before it is cut, so that no view is upsampled.

    Args:
        image_size: its width and height.
        size: in pixels: of the resized image at test time, of a view in training.
        resize: as in ``test_canvas``.
        random: whether views are random ones.

    Returns:
        Width and height; its own where it is smaller.
    """
    width, height = image_size
    shorter = max(image_size) if resize == "pad" else min(image_size)
    if random:  # the smallest side that a random view may have
        share = (MIN_AREA * ASPECTS[0]) ** 0.5
        shorter = share * shorter if resize != "short" else min(shorter, share * (width * height) ** 0.5)
    scale = min(1.0, size / shorter)
    return math.ceil(width * scale), math.ceil(height * scale)


def to_tensor(views: Sequence[Tensor], mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Normalise views on their device.

    Args:
        views: uint8 [height, width, 3] each, all of one size.
        mean, std: of each channel, of values in [0, 1].

    Returns:
        float32 [view, 3, height, width] in channels-last memory (twice as fast on a CPU).
    """
    deviation = np.asarray(std, dtype=np.float32)
    scale = np.float32(1.0) / (np.float32(255.0) * deviation)
    shift = np.asarray(mean, dtype=np.float32) / deviation
    values = torch.stack(list(views)).float()
    factors, offsets = (torch.from_numpy(item).to(values.device) for item in (scale, shift))
    return values.mul_(factors).sub_(offsets).permute(0, 3, 1, 2)
