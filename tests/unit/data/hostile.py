"""Picture files as they lie about in the world: broken, huge, turned, in odd colour spaces and with odd names."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"  # of a PNG


def png(width: int, height: int, *chunks: tuple[bytes, bytes], bits: int = 8, colour: int = 2) -> bytes:
    """A PNG with these chunks between header and end; ``colour`` 0 is grey, 2 RGB, 3 a palette, 6 RGBA."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return SIGNATURE + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in ((b"IHDR", header), *chunks, (b"IEND", b""))
    )


def bomb(path: Path, side: int) -> None:
    """A valid black-and-white PNG of ``side`` x ``side`` pixels in a few hundred kilobytes."""
    packer = zlib.compressobj(1)
    row = bytes(1 + (side + 7) // 8)

    def packed() -> Iterator[bytes]:
        for _ in range(side // 1000):
            yield packer.compress(row * 1000)
        yield packer.compress(row * (side % 1000)) + packer.flush()

    path.write_bytes(png(side, side, (b"IDAT", b"".join(packed())), bits=1, colour=0))


def arrow(size: tuple[int, int] = (60, 40)) -> Image.Image:
    """A picture without any symmetry: each corner has its own colour."""
    width, height = size
    image = Image.new("RGB", size, (128, 128, 128))
    for colour, box in (
        ((250, 20, 20), (0, 0, width // 2, height // 2)),
        ((20, 250, 20), (width // 2, 0, width, height // 2)),
        ((20, 20, 250), (0, height // 2, width // 2, height)),
    ):
        image.paste(colour, box)
    return image


def turned(path: Path, orientation: int, kind: str) -> None:
    """The arrow stored so that a viewer that obeys EXIF shows it upright."""
    stored = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    image = arrow() if stored is None else arrow().transpose(stored)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(
        path,
        kind,
        exif=exif,
        **({"quality": 95, "subsampling": 0} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}),
    )


def truncated_jpeg(path: Path) -> None:
    buffer = BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(buffer, "JPEG")
    path.write_bytes(buffer.getvalue()[:900])


def animated_gif(path: Path) -> None:
    first, second = Image.new("RGB", (30, 20), (200, 30, 30)), Image.new("RGB", (30, 20), (30, 30, 200))
    first.save(path, save_all=True, append_images=[second], duration=100)
