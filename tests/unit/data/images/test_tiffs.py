"""TIFFs of microscopes, scanners and satellites that Pillow reads as something else."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from capnet.data.images.decode import read_rgb
from capnet.data.images.image_files import inspect_image

SHORT, LONG = "H", "I"
TYPES = {SHORT: 3, LONG: 4}


def tiff(pixels: bytes, entries: dict[int, list[int]], order: str = "<", pages: int = 1) -> bytes:
    """A TIFF with ``pixels`` behind its head, and its only directory, or equal ones, behind them."""
    body, fields = pixels + bytes(len(pixels) % 2), b""
    for tag, values in sorted(entries.items()):
        kind = LONG if tag in (273, 279) else SHORT
        data = struct.pack(f"{order}{len(values)}{kind}", *values)
        if len(data) > 4:
            body, data = body + data, struct.pack(f"{order}I", 8 + len(body))
        fields += struct.pack(f"{order}HHI", tag, TYPES[kind], len(values)) + data.ljust(4, b"\0")
    start, size = 8 + len(body), 2 + len(fields) + 4
    for page in range(1, pages + 1):
        following = start + page * size if page < pages else 0
        body += struct.pack(f"{order}H", len(entries)) + fields + struct.pack(f"{order}I", following)
    return {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}HI", 42, start) + body


def sizes(array: np.ndarray) -> dict[int, list[int]]:
    """Entries of uncompressed planes [channel, height, width]."""
    bits, each = 8 * array.itemsize, array[0].nbytes
    offsets = [8 + each * plane for plane in range(len(array))]
    entries = {256: [array.shape[2]], 257: [array.shape[1]], 258: [bits] * len(array), 259: [1], 262: [2], 284: [2]}
    return entries | {273: offsets, 277: [len(array)], 278: [array.shape[1]], 279: [each] * len(array)}


def seen(path: Path, content: bytes) -> np.ndarray:
    path.write_bytes(content)
    assert inspect_image(path).fault == ""
    return np.asarray(read_rgb(path)).astype(int)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [8, 16])
def test_channels_one_after_the_other_keep_their_colours(tmp_path: Path, order: str, bits: int) -> None:
    """As satellites' bands are stored."""
    most = 2**bits - 1
    planes = np.random.default_rng(0).integers(0, most, (3, 24, 32), endpoint=True).astype(f"{order}u{bits // 8}")
    image = seen(tmp_path / "a.tif", tiff(planes.tobytes(), sizes(planes), order))
    np.testing.assert_allclose(image, planes.transpose(1, 2, 0) / (most / 255), atol=1)


def test_channels_of_16_bits_one_after_the_other_with_transparency(tmp_path: Path) -> None:
    planes = (257 * np.random.default_rng(0).integers(0, 256, (4, 24, 32))).astype("<u2")
    image = seen(tmp_path / "a.tif", tiff(planes.tobytes(), {**sizes(planes), 338: [2]}))
    *colours, alpha = planes / 65535
    expected = 255 * (np.stack(colours, axis=-1) * alpha[..., None] + 1 - alpha[..., None])
    np.testing.assert_allclose(image, expected, atol=1)


@pytest.mark.parametrize("white_is", [0, 1])
@pytest.mark.parametrize("bits", [8, 16])
def test_a_single_plane_is_no_negative(tmp_path: Path, bits: int, white_is: int) -> None:
    most = 2**bits - 1
    grey = np.linspace(0, most, 24 * 32).round().astype(f"<u{bits // 8}").reshape(1, 24, 32)
    entries = {**sizes(grey), 262: [white_is]}
    image = seen(tmp_path / "a.tif", tiff((grey if white_is else most - grey).tobytes(), entries))
    np.testing.assert_allclose(image, np.repeat(grey[0][..., None], 3, axis=2) / (most / 255), atol=0.51)


@pytest.mark.parametrize(("pages", "entries"), [(1, {254: [1], 330: [8]}), (2, {254: [1]})])
def test_a_small_copy_is_not_taken_for_the_image(tmp_path: Path, pages: int, entries: dict[int, list[int]]) -> None:
    """The preview that a DNG, NEF or ARW begins with."""
    grey = np.zeros((1, 24, 32), dtype="u1")
    (tmp_path / "a.dng").write_bytes(tiff(grey.tobytes(), {**sizes(grey), 262: [1], **entries}, pages=pages))
    assert "its first page, of 32 x 24 pixels, is a small copy" in inspect_image(tmp_path / "a.dng").fault


@pytest.mark.parametrize(("pages", "entries"), [(1, {254: [1]}), (1, {254: [0], 330: [8]}), (2, {254: [2]}), (2, {})])
def test_other_first_pages_are_the_image(tmp_path: Path, pages: int, entries: dict[int, list[int]]) -> None:
    """Also where smaller copies follow, and where a small copy was saved alone."""
    grey = np.full((1, 24, 32), 77, dtype="u1")
    image = seen(tmp_path / "a.tif", tiff(grey.tobytes(), {**sizes(grey), 262: [1], **entries}, pages=pages))
    assert np.all(image == 77)


@pytest.mark.parametrize("scale", [1, 257])
def test_a_palette_of_8_bits_is_not_black(tmp_path: Path, scale: int) -> None:
    """TIFF has 16 bits for a colour; libtiff takes a palette without a value above 255 for one of 8 bits."""
    colours = np.random.default_rng(0).integers(0, 256, (3, 256))
    codes = np.arange(256, dtype="u1").reshape(1, 8, 32)
    entries = {**sizes(codes), 262: [3], 320: (scale * colours).ravel().tolist()}
    np.testing.assert_array_equal(seen(tmp_path / "a.tif", tiff(codes.tobytes(), entries)), colours.T[codes[0]])
