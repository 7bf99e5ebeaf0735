"""What headers say of a decoder's work before it begins: numbers that Pillow would make objects of, one by one, and the
scans of a JPEG.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from io import BytesIO
from typing import Any, BinaryIO

import numpy as np

MOST_NUMBERS = 500_000  # of one entry; the largest image that is taken has 300,000 tiles of 16 x 16
OWN = 1024  # entries with a lower number are TIFF's own, which Pillow reads; of others it keeps the bytes
AS_BYTES = (1, 2, 7)  # types of values that stay bytes
EXIF = re.compile(rb"(?:Exif\0\0){1,2}")
MARK = b"\xff"
ALONE = {0x00, 0x01, *range(0xD0, 0xD9)}  # second bytes of markers without a segment, and of none
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
SCAN, END = 0xDA, 0xD9
ENTRY = (("tag", "u2"), ("kind", "u2"), ("count", "u4"), ("value", "u4"))
BIG_ENTRY = (("tag", "u2"), ("kind", "u2"), ("count", "u8"), ("value", "u8"))


def long_entry(file: BinaryIO) -> str:
    """What is too long in the first directory of a TIFF or of EXIF data.

    Args:
        file: at its start; where it is neither, there is nothing.

    Returns:
        A sentence without its full stop; empty where every entry is short.
    """
    head = file.read(16)
    if head[:2] not in (b"II", b"MM"):
        return ""
    order = "<" if head[:2] == b"II" else ">"
    is_big = b"\x2b" in head[2:4]
    width, entry = (8, BIG_ENTRY) if is_big else (4, ENTRY)
    kind = np.dtype([(name, order + size) for name, size in entry])
    if len(head) < 2 * width:
        return ""
    file.seek(int(np.frombuffer(head, order + f"u{width}", 1, offset=width)[0]) & (2**63 - 1))
    number = file.read(8 if is_big else 2)
    count = int.from_bytes(number, "little" if order == "<" else "big")
    if count > 2**16:
        return f"a directory of {count:,} entries"
    data = file.read(count * kind.itemsize)
    entries = np.frombuffer(data[: len(data) // kind.itemsize * kind.itemsize], kind)
    unpacked = (entries["tag"] < OWN) & ~np.isin(entries["kind"], AS_BYTES)
    if not (long := entries[unpacked & (entries["count"] > MOST_NUMBERS)]).size:
        return ""
    return f"entry {long[0]['tag']} has {int(long[0]['count']):,} numbers, at most {MOST_NUMBERS:,} are read"


def long_exif(info: Mapping[Any, Any]) -> bool:
    """Whether EXIF data has an entry that is too long.

    Args:
        info: of an image, as Pillow reads it; a PNG may have the data in digits.
    """
    data = info.get("exif")
    if data is None and (digits := info.get("Raw profile type exif")):
        data = bytes.fromhex("".join(str(digits).split("\n")[3:]))
    if not isinstance(data, bytes):
        return False
    prefix = EXIF.match(data)
    return bool(long_entry(BytesIO(data[prefix.end() if prefix else 0 :])))


def first_scan_is_partial(file: BinaryIO) -> bool:
    """Whether the first scan of a JPEG lacks some of its components: then further scans follow, and the decoder keeps
    the coefficients of all scans until the last.

    Args:
        file: at its start.
    """
    components = 0
    while mark := file.read(1):
        if mark != MARK:
            continue
        while mark == MARK:
            mark = file.read(1)
        if not mark or mark[0] in ALONE:
            continue
        if mark[0] == END:
            break
        length = int.from_bytes(file.read(2), "big")
        if mark[0] == SCAN:
            return int.from_bytes(file.read(1), "big") < components
        body = file.read(max(0, length - 2))
        if mark[0] in FRAMES and len(body) > 5:
            components = body[5]
    return False
