"""Images whose headers are small and make a decoder work for minutes or gigabytes: refused before it begins."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from faults.bounded import bounded
from PIL import Image
from unit.data import hostile

from capnet.data.images.decode import Unusable, open_image, read_rgb
from capnet.data.images.image_files import inspect_image

BASELINE, EXTENDED, ARITHMETIC = 0xC0, 0xC1, 0xC9


def segment(mark: int, body: bytes) -> bytes:
    return bytes([0xFF, mark]) + struct.pack(">H", len(body) + 2) + body


def scanned(width: int, height: int, scans: int, frame: int = BASELINE, components: int = 3) -> bytes:
    """A JPEG with one scan for a component, without any data, again and again."""
    parts = b"".join(bytes([number + 1, 0x11, 0]) for number in range(components))
    tables = b"".join(segment(0xC4, bytes([kind, 1]) + bytes(16)) for kind in (0, 0x10))
    tables += segment(0xDB, bytes([0] + [1] * 64))
    head = b"\xff\xd8" + segment(frame, struct.pack(">BHHB", 8, height, width, components) + parts) + tables
    return (
        head + b"".join(segment(0xDA, bytes([1, n % components + 1, 0, 0, 63, 0])) for n in range(scans)) + b"\xff\xd9"
    )


def entries(*tags: tuple[int, int, int, int], data: bytes = b"") -> bytes:
    """A directory of (tag, type, count, value) each, as TIFF and EXIF have it, with data behind it."""
    body = b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + body + bytes(4) + data


def tiff(strips: int, rows: int, width: int, height: int, bits: int = 8) -> bytes:
    """A TIFF whose strips, of so many rows, all begin where the pixels do."""
    tags = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 1, bits),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (278, 4, 1, rows),
    ]
    start = 14 + 12 * (len(tags) + 1)
    pixels = start + 4 * strips
    data = struct.pack("<I", pixels) * strips + bytes(width * height * bits // 8 + 1)
    return entries(*tags, (273, 4, strips, start), data=data)


def big_tiff(order: str) -> bytes:
    mark = b"II" if order == "<" else b"MM"
    size = struct.pack(order + "HHQQ", 256, 4, 10**6, 8)
    return mark + struct.pack(order + "HHHQQ", 43, 8, 0, 16, 1) + size + bytes(8)


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    return hostile.png(8, 4, *chunks, (b"IDAT", zlib.compress(bytes(4 * 25))))


def turned(kind: int, count: int, size: int) -> bytes:
    """EXIF data with so many orientations."""
    return entries((274, kind, count, 8), data=b"\x34\x12" * (count * size // 2 + 8))


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "scans of a baseline JPEG": (lambda: scanned(6000, 6000, 20_000), "20000 scans of 6000 x 6000 pixels"),
    "scans of an extended JPEG": (lambda: scanned(6000, 6000, 20_000, EXTENDED), "20000 scans of 6000 x 6000 pixels"),
    "scans of an arithmetic JPEG": (lambda: scanned(6000, 6000, 9000, ARITHMETIC), "9000 scans of 6000 x 6000 pixels"),
    "junk ahead of its frame": (lambda: b"\xff\xd8\xff\0ab\xff" + scanned(6000, 6000, 9000)[2:], "9000 scans"),
    "coefficients of a large JPEG": (lambda: scanned(13_300, 13_300, 3), "more than 75,000,000 pixels"),
    "strips that cover each other": (lambda: tiff(99_000, 3999, 4000, 4000), "strips or tiles of 792,"),
    "strips of one bit": (lambda: tiff(99_000, 3999, 4000, 4000, bits=1), "strips or tiles of 792,"),
    "millions of strips": (lambda: tiff(5_000_000, 1, 64, 48), "entry 273 has 5,000,000 numbers"),
    "widths": (lambda: entries((256, 4, 9_000_000, 8), data=bytes(36_000_000)), "entry 256 has 9,000,000 numbers"),
    "resolutions": (lambda: entries((282, 5, 8_000_000, 8), data=bytes(64_000_000)), "entry 282 has 8,000,000 numbers"),
    "a large TIFF": (lambda: big_tiff("<"), "entry 256 has 1,000,000 numbers"),
    "a large TIFF from the other end": (lambda: big_tiff(">"), "entry 256 has 1,000,000 numbers"),
    "a directory": (
        lambda: b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 2**60),
        "a directory of 1,152,921,504,606,846,976",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_a_header_that_makes_much_work_is_a_reason_at_once(tmp_path: Path, name: str) -> None:
    make, reason = REFUSED[name]
    path = tmp_path / "a.jpg"
    path.write_bytes(make())

    def call() -> None:
        assert reason in inspect_image(path).fault
        with pytest.raises(Unusable, match=reason[:20]), open_image(path):
            pass

    outcome = bounded(call, megabytes=4000, seconds=90)
    assert outcome.kind == "done", outcome
    assert outcome.seconds < 5
    assert outcome.megabytes < 400


EXIFS: dict[str, Callable[[], bytes]] = {
    "shorts": lambda: png((b"eXIf", turned(3, 30_000_000, 2))),
    "rationals": lambda: png((b"eXIf", turned(5, 7_000_000, 8))),
    "digits": lambda: png((b"tEXt", b"Raw profile type exif\0\nexif\n 9\n" + turned(5, 3_000_000, 8).hex().encode())),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", EXIFS)
def test_exif_data_with_millions_of_orientations_turns_nothing_in_little_memory(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(EXIFS[name]())

    def call() -> None:
        assert inspect_image(path).fault == ""
        assert read_rgb(path).size == (8, 4)

    outcome = bounded(call, megabytes=4000, seconds=90)
    assert outcome.kind == "done", outcome
    assert outcome.seconds < 10
    assert outcome.megabytes < 700


def test_what_is_wrong_in_exif_data_is_not_printed_entry_by_entry(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(
        png((b"eXIf", entries(*((number, 7, 60_000, 8) for number in range(1, 5000)), data=bytes(60_000))))
    )
    code = f"from pathlib import Path; from capnet.data.images.decode import read_rgb; read_rgb(Path({str(path)!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_usual_files_with_several_scans_strips_and_exif_data_are_taken(tmp_path: Path) -> None:
    path, image = tmp_path / "a.jpg", Image.linear_gradient("L").convert("RGB").resize((96, 64))
    exif = Image.Exif()
    exif[274] = 6
    for kind, more in (
        ("JPEG", {"progressive": True}),
        ("JPEG", {"exif": exif}),
        ("PNG", {"exif": exif}),
        ("WEBP", {"exif": exif}),
        ("TIFF", {"tiffinfo": {278: 1}}),
        ("TIFF", {"compression": "tiff_lzw"}),
    ):
        buffer = io.BytesIO()
        image.save(buffer, kind, **more)
        path.write_bytes(buffer.getvalue())
        assert inspect_image(path).fault == ""
        assert read_rgb(path).size == ((64, 96) if "exif" in more else (96, 64))
    path.write_bytes(scanned(96, 64, 3))
    assert read_rgb(path).size == (96, 64)


def test_a_png_with_exif_data_in_digits_is_turned(tmp_path: Path) -> None:
    data = entries((274, 3, 1, 6))
    path = tmp_path / "a.png"
    path.write_bytes(png((b"tEXt", b"Raw profile type exif\0\nexif\n 9\n" + data.hex().encode())))
    assert read_rgb(path).size == (4, 8)
