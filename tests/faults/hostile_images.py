"""Image files that a stranger could send: each by a name, small on the disk."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Iterator

from PIL import Image
from unit.data import hostile

KINDS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP")


def whole(kind: str, size: tuple[int, int] = (61, 47), **more: object) -> bytes:
    generator, buffer = random.Random(1), io.BytesIO()
    Image.frombytes("RGB", size, generator.randbytes(size[0] * size[1] * 3)).save(buffer, kind, **more)
    return buffer.getvalue()


def damaged(each: int) -> Iterator[tuple[str, bytes]]:
    """``each`` files a format with bytes changed, cut, doubled or moved, the same every time."""
    for kind in KINDS:
        data, generator = whole(kind), random.Random(kind)
        for number in range(each):
            changed = bytearray(data)
            for _ in range(generator.randint(1, 8)):
                start = generator.randrange(len(changed)) if number % 2 else generator.randrange(min(200, len(changed)))
                what = generator.randrange(4)
                if what == 0:
                    changed[start] = generator.choice((0, 1, 127, 128, 255, generator.randrange(256)))
                elif what == 1:
                    del changed[start : start + generator.randint(1, 20)]
                elif what == 2:
                    changed[start:start] = changed[start : start + generator.randint(1, 20)]
                else:
                    changed[start : start + 4] = generator.choice((b"\xff" * 4, b"\x7f\xff\xff\xff", b"\0" * 4))
                changed = changed or bytearray(b"\0")
            yield f"{kind} {number}", bytes(changed)


def png(width: int, height: int, bits: int, colour: int, *chunks: tuple[bytes, bytes], data: bytes = b"") -> bytes:
    return hostile.png(width, height, *chunks, (b"IDAT", data or zlib.compress(b"")), bits=bits, colour=colour)


def tiff(*tags: tuple[int, int, int, int], after: int = 0) -> bytes:
    """A TIFF of one directory: (tag, type, count, value) each, and where the next directory is."""
    body = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + body + struct.pack("<I", after) + bytes(64)


def jpeg_of_many_scans() -> bytes:
    """A progressive JPEG whose last scan comes 3,000 times."""
    data = whole("JPEG", (1000, 1000), progressive=True, quality=5)
    start = data.rindex(b"\xff\xda")
    return data[:start] + data[start:-2] * 3000 + data[-2:]


def made() -> Iterator[tuple[str, bytes]]:
    """Headers that promise more than there is, or more than memory holds."""
    bomb = zlib.compress(bytes(50_000_000), 9)
    for width, height in (
        (2000, 1),
        (1, 2000),
        (1_000_000, 8),
        (2**31 - 1, 1),
        (2**31 - 1, 2**31 - 1),
        (0, 0),
        (60_000, 60_000),
    ):
        yield f"a PNG of {width} x {height}", png(width, height, 1, 0)
    yield "a PNG without pixels", png(100, 100, 8, 2)
    yield "a PNG with more pixels than it says", png(4, 4, 8, 2, data=bomb)
    yield "a PNG with a text that is a bomb", png(4, 4, 8, 2, (b"zTXt", b"a\0\0" + bomb))
    yield "a PNG with many texts", png(4, 4, 8, 2, *[(b"zTXt", b"a\0\0" + zlib.compress(bytes(900_000)))] * 100)
    yield "a PNG with a colour profile that is a bomb", png(4, 4, 8, 2, (b"iCCP", b"a\0\0" + bomb))
    yield "a PNG of unknown bits", png(4, 4, 3, 2)
    yield "a PNG with a palette that is missing", png(4, 4, 8, 3, data=zlib.compress(bytes(20)))
    yield "a PNG whose chunk is 2 GB", hostile.SIGNATURE + struct.pack(">I", 2**31 - 1) + b"IDAT"
    yield "a PNG that turns 90,000 frames", png(4, 4, 8, 2, (b"acTL", struct.pack(">II", 90_000, 0)))
    yield "a GIF of 65,535 x 65,535", b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0x80, 0, 0) + bytes(6) + b","
    yield "a BMP of 2^31 rows", b"BM" + struct.pack("<IIIIiiHH", 100, 0, 54, 40, 100, -(2**31), 1, 24) + bytes(60)
    yield (
        "a BMP with four billion colours",
        b"BM" + struct.pack("<IIIIiiHHIIiiII", 100, 0, 54, 40, 8, 8, 1, 8, 0, 0, 0, 0, 2**32 - 1, 0),
    )
    size = ((256, 4, 1, 100), (257, 4, 1, 100), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1))
    yield "a TIFF that points at itself", tiff(*size, after=8)
    yield "a TIFF of four billion strips", tiff(*size, (273, 4, 2**32 - 1, 8), (279, 4, 2**32 - 1, 8))
    yield "a TIFF of huge tiles", tiff(*size, (322, 4, 1, 2**31), (323, 4, 1, 2**31), (324, 4, 1, 8), (325, 4, 1, 8))
    yield "a TIFF of 2^32 x 2^32", tiff((256, 4, 1, 2**32 - 1), (257, 4, 1, 2**32 - 1), *size[2:])
    yield "a TIFF with 65,535 samples", tiff(*size, (277, 3, 1, 65535), (273, 4, 1, 8), (279, 4, 1, 8))
    yield "a JPEG of 65,535 x 65,535", whole("JPEG").replace(struct.pack(">HH", 47, 61), b"\xff" * 4)
    yield "a JPEG of many scans", jpeg_of_many_scans()
    yield "a JPEG with much EXIF", whole("JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\x03\0" * 10_000)
    yield "a WEBP of 16,383 x 16,383", b"RIFF\x1e\0\0\0WEBPVP8L\x11\0\0\0\x2f" + b"\xff" * 16
    yield "a page as a JPEG", b"<!DOCTYPE html><script>alert(1)</script>"
    yield "PostScript", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(touch EXECUTED) system\n"
    yield "an SVG", b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
    yield "an XPM", b"/* XPM */\nstatic char *a[] = {\n"
    yield "an archive behind a JPEG", whole("JPEG") + b"PK\x03\x04" * 100
