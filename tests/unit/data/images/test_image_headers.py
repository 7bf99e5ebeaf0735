"""Images whose pixels are few and whose rest is much: refused before a decoder spends minutes or gigabytes on it."""

from __future__ import annotations

import io
import random
import struct
import time
import zlib
from pathlib import Path

import pytest
from PIL import Image
from unit.data import hostile

from capnet.data.images.decode import Unusable, read_rgb
from capnet.data.images.image_files import inspect_image


def saved(kind: str, size: tuple[int, int] = (64, 48), **more: object) -> bytes:
    buffer = io.BytesIO()
    Image.frombytes("RGB", size, random.Random(1).randbytes(size[0] * size[1] * 3)).save(buffer, kind, **more)
    return buffer.getvalue()


def png(*chunks: tuple[bytes, bytes], behind: tuple[tuple[bytes, bytes], ...] = ()) -> bytes:
    return hostile.png(64, 48, *chunks, (b"IDAT", zlib.compress(bytes(48 * (1 + 64 * 3)))), *behind)


def jpeg(segment: bytes) -> bytes:
    """A JPEG with ``segment`` ahead of everything else."""
    whole = saved("JPEG")
    return whole[:2] + segment + whole[2:]


def exif(length: int) -> bytes:
    return b"\xff\xe1" + struct.pack(">H", 8 + length) + b"Exif\0\0" + bytes(length)


def bmp(runs: bytes) -> bytes:
    """A compressed BMP of 4,000 x 4,000 pixels with these runs."""
    header = struct.pack("<IIIIiiHHIIiiII", 100, 0, 54 + 1024, 40, 4000, 4000, 1, 8, 1, 0, 0, 0, 256, 0)
    return b"BM" + header + bytes(1024) + runs


READS = "its decoder reads more than 1,000,000 times"
BYTES = "its decoder reads more than 134,217,728 bytes before the first pixel"
CASES = {
    "a JPEG with fill bytes": (lambda: jpeg(b"\xff" * 3_000_000), READS),
    "a JPEG with anything between its segments": (lambda: jpeg(b"\xff\xfe\0\2" + b"a" * 1_200_000), READS),
    "a JPEG with many comments": (lambda: jpeg(b"\xff\xfe\0\3a" * 400_000), READS),
    "a JPEG with EXIF in many parts": (lambda: jpeg(exif(60_000) * 1500), "more than 64 blocks of EXIF data"),
    "a PNG with many texts": (lambda: png(*[(b"tEXt", b"a\0b")] * 400_000), READS),
    "a PNG with many texts behind its pixels": (lambda: png(behind=((b"tEXt", b"a\0b"),) * 400_000), READS),
    "a PNG with pixels in many parts": (lambda: png(*[(b"IDAT", b"")] * 600_000), READS),
    "a PNG with much EXIF": (lambda: png((b"eXIf", b"II*\0\x08\0\0\0\0\0" + bytes(150_000_000))), BYTES),
    "a GIF with a long comment": (
        lambda: b"GIF89a" + bytes([9, 0, 9, 0, 0, 0, 0]) + b"!\xfe" + (b"\xff" + b"a" * 255) * 520_000,
        READS,
    ),
    "a BMP of empty lines": (lambda: bmp(bytes(3_000_000)), READS),
    "a WEBP with a large profile": (lambda: saved("WEBP", icc_profile=bytes(150_000_000)), BYTES),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_file_that_is_mostly_no_pixels_is_a_reason_within_seconds(tmp_path: Path, name: str) -> None:
    make, reason = CASES[name]
    path = tmp_path / "a.jpg"
    path.write_bytes(make())
    started = time.process_time()
    assert reason in inspect_image(path).fault
    with pytest.raises(Unusable, match=reason):
        read_rgb(path)
    assert time.process_time() - started < 10


@pytest.mark.slow
@pytest.mark.parametrize(("size", "profile"), [((8600, 8600), 0), ((5000, 5000), 110_000_000)])
def test_a_webp_whose_decoder_needs_more_than_a_gigabyte_is_refused_at_its_header(
    tmp_path: Path, size: tuple[int, int], profile: int
) -> None:
    path = tmp_path / "a.webp"
    Image.new("RGB", size).save(path, lossless=True, quality=0, method=0, icc_profile=bytes(profile))
    for decode in (False, True):
        fault = inspect_image(path, decode).fault
        assert fault.startswith(f"a WEBP of {size[0]} x {size[1]} pixels and ")
        assert fault.endswith("could take more than a gigabyte: save it as JPEG or PNG")


def test_what_cameras_and_editors_write_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    preview = saved("JPEG", exif=Image.Exif().tobytes())
    for data in (
        jpeg(exif(60_000) * 3),
        jpeg(b"\xff\xe1" + struct.pack(">H", 65_000) + bytes(64_998)) + preview * 3,
        jpeg(b"\xff" * 1000),
        png((b"eXIf", b"II*\0\x08\0\0\0\0\0"), *[(b"tEXt", b"a\0b")] * 1000),
        saved("WEBP", icc_profile=bytes(1_000_000)),
        saved("TIFF", compression="tiff_lzw"),
        saved("TIFF"),
        saved("BMP"),
        saved("GIF"),
    ):
        path.write_bytes(data)
        assert inspect_image(path).fault == ""
        assert read_rgb(path).size == (64, 48)


def test_no_file_stays_open(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    for kind in ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"):
        path = tmp_path / f"a.{kind}"
        path.write_bytes(saved(kind))
        read_rgb(path)
        path.write_bytes(path.read_bytes()[:200])
        with pytest.raises(Unusable):
            read_rgb(path)
    open_files = [target.readlink() for target in Path("/proc/self/fd").iterdir() if target.exists()]
    assert not [target for target in open_files if target.is_relative_to(tmp_path)]
    assert not [item for item in recwarn if issubclass(item.category, ResourceWarning)]


def test_pixels_that_decode_and_have_no_colour_are_that_images_fault(tmp_path: Path) -> None:
    chunks = ((b"PLTE", bytes(9)), (b"tRNS", bytes(4000)), (b"IDAT", zlib.compress(bytes(48 * 65))))
    path = tmp_path / "a.png"
    path.write_bytes(hostile.png(64, 48, *chunks, colour=3))
    with pytest.raises(Unusable) as caught:
        read_rgb(path)
    assert inspect_image(path).fault == str(caught.value) == "does not decode: palette index out of range"
