"""Images of 16 bits whose values use fewer, as many X-ray machines store them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
from PIL import Image

DARK = 2**14  # of 2**16: where no value reaches this, the device uses fewer bits
BAND = 1024  # rows that are read at a time: whole copies need memory
NO_COLOUR = "AaX"  # channels of transparency, and those that nobody shows


def is_deep(image: Image.Image) -> bool:
    """Do the channels of an image that is not decoded yet have 16 bits each? Pillow keeps the upper 8 of colours."""
    tile = next(iter(getattr(image, "tile", ())), None)
    return image.format in ("PNG", "TIFF") and tile is not None and ";16" in str(tile.args)


def brightest(image: Image.Image, deep: bool) -> int | None:
    """The largest value of a decoded image of 16 bits, None for another one.

    Args:
        image: decoded.
        deep: what ``is_deep`` gave before; of colours the value is the largest with the same upper 8 bits.
    """
    if image.mode.startswith("I;16"):
        bands = ((0, top, image.width, min(top + BAND, image.height)) for top in range(0, image.height, BAND))
        return max(int(np.asarray(image.crop(band)).max()) for band in bands)
    if not deep:
        return None
    ranges = cast("tuple[tuple[int, int], ...]", image.getextrema())
    return max(
        256 * most + 255 for band, (_, most) in zip(image.getbands(), ranges, strict=True) if band not in NO_COLOUR
    )


@dataclass
class Dark:
    """How many of ``images`` of 16 bits are ``dark``, and the first of these with its largest value."""

    images: int = 0
    dark: int = 0
    first: tuple[str, int] = ("", 0)

    def add(self, path: str, value: int | None) -> None:
        """Count an image, by its path and what ``brightest`` gave."""
        self.images += value is not None
        if value is not None and 0 < value < DARK:
            self.first = self.first if self.dark else (path, value)
            self.dark += 1

    @property
    def warning(self) -> str:
        """What to do about them; "" where none is dark."""
        path, value = self.first
        if not self.dark:
            return ""
        return (
            f"{self.dark} of {self.images} images of 16 bits are nearly black, or nearly white where 0 is white: in"
            f" {path!r} no value is above {value} of 65535. Where a camera or scanner uses fewer bits, scale the values"
            " to 0 to 65535 first: 16 bits are divided by 257"
        )
