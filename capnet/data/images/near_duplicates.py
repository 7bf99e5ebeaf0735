"""Images that look the same: difference hashes of two sizes, look-alikes among all images, and frames of bursts
among neighbours.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from capnet.data.images.decode import to_rgb

DHash = bytes  # 64 coarse and 256 fine bits; NO_DHASH where an image has too little structure
NO_DHASH: DHash = bytes(40)
COARSE, FINE = 8, 16  # cells a side
# bits in which look-alikes may differ: copies saved again differ in 0 to 7, unrelated photos in 11 and more
COARSE_DISTANCE = 7
FINE_DISTANCE = 56  # the same for the fine bits: frames of a burst differ in 10 to 56, unrelated photos in 65 and more
LEAST_STRUCTURE = 8  # coarse bits of the rarer kind that a hash needs: those of nearly flat images are all alike
NEIGHBOURS = 8  # files before and after in which frames of a burst are looked for
BANDS, BAND_BITS = 4, 16
PAIRS = 1 << 21  # pairs compared at once
DIGITS = re.compile(r"(\d+)")


def dhash(image: Image.Image) -> DHash:
    """``difference_hash`` of an image that is open and not loaded yet; a JPEG is decoded at a smaller scale.

    Raises:
        Unusable: the file does not decode.
    """
    image.draft("L", (16 * (FINE + 1), 16 * FINE))  # JPEG: decode at a smaller scale, but at 16 pixels a cell or more
    return difference_hash(to_rgb(image))


def difference_hash(pixels: Image.Image) -> DHash:
    """Is each of 8 x 8, and of 16 x 16, grey cells brighter than its left neighbour, row by row? Source: N. Krawetz,
    "Kind of Like That" (2013), the dHash.

    Args:
        pixels: of an image, upright.

    Returns:
        40 bytes; NO_DHASH where the image has too little structure.
    """
    grey = pixels.convert("L")
    coarse = difference_bits(grey, COARSE)
    if min(coarse.sum(), coarse.size - coarse.sum()) < LEAST_STRUCTURE:
        return NO_DHASH
    return np.packbits(coarse).tobytes() + np.packbits(difference_bits(grey, FINE)).tobytes()


def difference_bits(grey: Image.Image, cells: int) -> np.ndarray:
    """bool [row, column] of a grey image scaled to ``cells`` x ``cells`` and one column: brighter than the cell to
    the left?
    """
    values = np.asarray(grey.resize((cells + 1, cells), Image.Resampling.LANCZOS))
    return values[:, 1:] > values[:, :-1]


def as_words(dhashes: Sequence[DHash]) -> np.ndarray:
    """uint64 [image, 5]: the coarse bits in the first word, the fine bits in the other four."""
    return np.frombuffer(b"".join(dhashes), dtype=">u8").reshape(-1, 5).astype(np.uint64)


def near_duplicates(words: np.ndarray, splits: np.ndarray, contents: np.ndarray) -> np.ndarray:
    """Find for every row the first row in another split with another content and the same or a near dhash.

    No pair is missed, and the work grows with the number of different dhashes, also where most of them are near, as
    frames of a camera that does not move.

    Args:
        words: uint64 [row, 5] of as_words; equal contents have equal words.
        splits: any values that tell splits apart, [row].
        contents: any values that tell files apart by their bytes, [row].

    Returns:
        Row of the near-duplicate, int64 [row]; -1 where there is none.
    """
    _, splits = np.unique(splits, return_inverse=True)
    _, contents = np.unique(contents, return_inverse=True)
    nobody = len(words)
    twin = np.full(nobody, -1, dtype=np.int64)
    usable = np.flatnonzero(words[:, 0])
    if len(usable) < 2:
        return twin
    dhashes, dhash = np.unique(words[usable], axis=0, return_inverse=True)
    dhash = dhash.reshape(-1)
    # per dhash and split: the first row, and the first one with another content than that
    first = np.full((len(dhashes), splits.max() + 1), nobody, dtype=np.int64)
    second = first.copy()
    split = splits[usable]
    np.minimum.at(first, (dhash, split), usable)
    others = contents[first[dhash, split]] != contents[usable]
    np.minimum.at(second, (dhash[others], split[others]), usable[others])
    for elsewhere in range(first.shape[1]):
        is_queried = np.zeros(len(dhashes), dtype=bool)
        is_queried[dhash[split != elsewhere]] = True
        near = _first_near(dhashes, is_queried, first[:, elsewhere], nobody)
        is_same = np.append(contents, -1)[first[dhash, elsewhere]] == contents[usable]
        partner = np.minimum(near[dhash], np.where(is_same, second[dhash, elsewhere], first[dhash, elsewhere]))
        better = (split != elsewhere) & (partner < nobody) & ((twin[usable] < 0) | (partner < twin[usable]))
        twin[usable[better]] = partner[better]
    return twin


def _first_near(dhashes: np.ndarray, is_queried: np.ndarray, rows: np.ndarray, nobody: int) -> np.ndarray:
    """For each dhash the smallest row of the other ones that are near, within both distances.

    Codes that differ in at most 7 of 64 bits agree, but for one bit, in one of four bands of 16 bits: only such pairs
    are compared, in the order of the rows, until one is near or a smaller row is known.

    Args:
        dhashes: uint64 [dhash, 5], all different.
        is_queried: bool [dhash], those to answer for.
        rows: int64 [dhash]; ``nobody`` where a dhash has none.
        nobody: larger than all rows.

    Returns:
        int64 [dhash]; ``nobody`` where none is near, or where nothing was asked.
    """
    nearest = np.full(len(dhashes), nobody, dtype=np.int64)
    members = np.argsort(rows, kind="stable")[: np.count_nonzero(rows < nobody)]
    for band in range(BANDS):
        key = ((dhashes[:, 0] >> np.uint64(BAND_BITS * band)) & np.uint64((1 << BAND_BITS) - 1)).astype(np.int64)
        order = members[np.argsort(key[members], kind="stable")]  # of one key: in the order of their rows
        ends = np.concatenate([[0], np.cumsum(np.bincount(key[members], minlength=1 << BAND_BITS))])
        for flip in (0, *(1 << bit for bit in range(BAND_BITS))):
            start, end, width = ends[key ^ flip], ends[(key ^ flip) + 1], 1
            active = np.flatnonzero(is_queried & (start < end))
            while len(active := active[rows[order[start[active]]] < nearest[active]]):
                length = np.minimum(end[active] - start[active], width)
                for low, high in _blocks(length):
                    some, lengths = active[low:high], length[low:high]
                    one = np.repeat(some, lengths)
                    within = np.arange(len(one)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
                    other = order[np.repeat(start[some], lengths) + within]
                    np.minimum.at(nearest, *_near(dhashes, one, other, rows))
                start[active] += length
                active, width = active[start[active] < end[active]], 2 * width
    return nearest


def _near(dhashes: np.ndarray, one: np.ndarray, other: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of pairs of dhashes, those that differ and are near: the first, and the row of the second."""
    close = (one != other) & (np.bitwise_count(dhashes[one, 0] ^ dhashes[other, 0]) <= COARSE_DISTANCE)
    one, other = one[close], other[close]
    close = fine_distance(dhashes[one], dhashes[other]) <= FINE_DISTANCE
    return one[close], rows[other[close]]


def _blocks(lengths: np.ndarray) -> Iterator[tuple[int, int]]:
    """Ranges of rows whose lengths sum to PAIRS or less, where one row alone allows."""
    total = np.concatenate([[0], np.cumsum(lengths)])
    low = 0
    while low < len(lengths):
        high = max(low + 1, int(np.searchsorted(total, total[low] + PAIRS, side="right")) - 1)
        yield low, high
        low = high


def fine_distance(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Fine bits in which two dhashes differ, int [row], from uint64 [row, 5] each."""
    return np.bitwise_count(one[:, 1:] ^ other[:, 1:]).sum(axis=1, dtype=np.int64)


def burst_frames(words: np.ndarray, splits: np.ndarray, contents: np.ndarray, paths: Sequence[str]) -> np.ndarray:
    """Find for every row the nearest file by name in another split that shows nearly the same.

    A camera numbers its frames one after the other, so only files near each other by name are compared, and less must
    agree.

    Args:
        words: uint64 [row, 5] of as_words.
        splits: any values that tell splits apart, [row].
        contents: any values that tell files apart by their bytes, [row].
        paths: file names, [row].

    Returns:
        Row of the other frame, int64 [row]; -1 where there is none.
    """
    usable = words[:, 0] != 0
    order = np.array(sorted(range(len(paths)), key=lambda row: natural_key(paths[row])), dtype=np.int64)
    twin = np.full(len(words), -1, dtype=np.int64)
    for step in range(1, min(NEIGHBOURS, len(order) - 1) + 1):
        one, other = order[:-step], order[step:]
        near = usable[one] & usable[other] & (splits[one] != splits[other]) & (contents[one] != contents[other])
        one, other = one[near], other[near]
        close = fine_distance(words[one], words[other]) <= FINE_DISTANCE
        for a, b in ((one[close], other[close]), (other[close], one[close])):
            twin[a] = np.where(twin[a] < 0, b, twin[a])
    return twin


def natural_key(path: str) -> list[str | int]:
    """Sorts names as people do: 9 before 10."""
    return [int(part) if position % 2 else part for position, part in enumerate(DIGITS.split(path))]
