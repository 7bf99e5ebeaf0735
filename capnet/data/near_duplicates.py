"""Pictures that look the same: a 64-bit difference hash, and which rows have a look-alike on another side of the split."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from capnet.data.pictures import FORMATS

DISTANCE = 3  # bits in which look-alikes may differ: a copy saved again differs in 0 to 3, other pictures in 10 and more
LEAST_STRUCTURE = 8  # bits of the rarer kind that a hash needs: nearly flat pictures all look the same
BLOCK = 1024  # rows compared at once


def difference_hash(path: Path) -> int:
    """64 bits: is each of 8 x 8 grey cells brighter than its left neighbour, row by row; 0 where the picture has too little structure.

    A file that does not decode has 0, too. Source: N. Krawetz, "Kind of Like That" (2013), the dHash.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            image.draft("L", (144, 128))  # JPEG: decode at a smaller scale, but at 16 pixels a cell or more
            cells = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.LANCZOS))
    except Exception:  # damaged bytes can raise nearly anything in a decoder; files that are gone are another check's matter
        return 0
    bits = cells[:, 1:] > cells[:, :-1]
    if min(bits.sum(), 64 - bits.sum()) < LEAST_STRUCTURE:
        return 0
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def look_alikes(codes: np.ndarray, sides: np.ndarray, contents: np.ndarray, distance: int = DISTANCE) -> np.ndarray:
    """Per row the first row on another side with another content whose code is within ``distance`` bits, int64 [row]; -1 where there is none.

    ``codes`` is uint64 [row] (0: no hash), ``sides`` and ``contents`` are any values that tell sides and equal files apart.
    Codes that differ in at most ``distance`` bits agree in one of distance + 1 bands of bits, so only those are compared.
    """
    _, sides = np.unique(sides, return_inverse=True)
    _, contents = np.unique(contents, return_inverse=True)
    nobody = len(codes)
    found = np.full(len(codes), nobody, dtype=np.int64)
    usable = np.flatnonzero(codes)
    edges = np.linspace(0, 64, distance + 2).astype(int)
    for low, high in pairwise(edges):
        band = (codes[usable] >> np.uint64(low)) & np.uint64((1 << int(high - low)) - 1)
        order = usable[np.argsort(band, kind="stable")]
        starts = np.flatnonzero(np.diff(np.sort(band))) + 1
        for rows in np.split(order, starts):
            if len(rows) < 2 or len(np.unique(sides[rows])) < 2:
                continue
            for block in np.split(rows, range(BLOCK, len(rows), BLOCK)):
                near = np.bitwise_count(codes[block, None] ^ codes[None, rows]) <= distance
                near &= (sides[block, None] != sides[None, rows]) & (contents[block, None] != contents[None, rows])
                found[block] = np.minimum(found[block], np.where(near, rows[None, :], nobody).min(axis=1))
    return np.where(found < nobody, found, -1)
