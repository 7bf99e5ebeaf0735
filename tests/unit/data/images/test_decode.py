"""What the network sees of a picture file: pixels against what was stored, and a reason where there are none."""

from __future__ import annotations

import contextlib
import re
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from unit.data.hostile import animated_gif, arrow, bomb, png, truncated_jpeg, turned

from capnet.data.images.decode import FORMATS, Unusable, open_image, read_rgb, to_rgb
from capnet.data.images.image_files import inspect_image
from capnet.data.images.transform import Transform
from capnet.errors import DataError


def pixels(path: Path) -> np.ndarray:
    image = read_rgb(path)
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def test_16_bits_are_scaled_and_not_clipped(tmp_path: Path) -> None:
    stored = np.arange(0, 65536, dtype=np.uint16).reshape(256, 256)
    for name in ("a.png", "a.tif"):
        Image.fromarray(stored).save(tmp_path / name)
        seen = pixels(tmp_path / name)
        np.testing.assert_array_equal(seen, np.round(stored / 257).astype(int)[:, :, None].repeat(3, axis=2))
    big_endian = Image.frombytes("I;16B", (256, 256), stored.astype(">u2").tobytes())
    big_endian.save(tmp_path / "b.tif")
    np.testing.assert_array_equal(pixels(tmp_path / "b.tif"), pixels(tmp_path / "a.tif"))


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_tiff_in_which_0_is_white_is_no_negative(tmp_path: Path, bits: int, orientation: int) -> None:
    """As many X-ray devices write it (DICOM's MONOCHROME1)."""
    most = 2**bits - 1
    seen = np.linspace(0, most, 24 * 32).round().astype(f"uint{bits}").reshape(24, 32)
    stored = np.rot90(most - seen) if orientation == 6 else most - seen
    height, width = stored.shape
    entries = [(256, width), (257, height), (258, bits), (259, 1), (262, 0), (273, 8), (274, orientation), (277, 1)]
    entries += [(278, height), (279, stored.nbytes)]
    table = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    head = struct.pack("<2sHI", b"II", 42, 8 + stored.nbytes)
    (tmp_path / "a.tif").write_bytes(head + stored.tobytes() + struct.pack("<H", len(entries)) + table + bytes(4))
    expected = np.round(seen / (most / 255)).astype(int)[:, :, None].repeat(3, axis=2)
    np.testing.assert_array_equal(pixels(tmp_path / "a.tif"), expected)


def pixel_row(row: bytes) -> tuple[bytes, bytes]:
    """The chunk of a PNG's only row."""
    return b"IDAT", zlib.compress(b"\0" + row)


def test_16_bits_a_channel_are_scaled(tmp_path: Path) -> None:
    stored = np.linspace(0, 65535, 3 * 64).round().astype(">u2").reshape(1, 64, 3)
    (tmp_path / "rgb16.png").write_bytes(png(64, 1, pixel_row(stored.tobytes()), bits=16))
    np.testing.assert_allclose(pixels(tmp_path / "rgb16.png"), stored / 257, atol=1)


@pytest.mark.parametrize(
    ("row", "bits", "transparent", "seen"),
    [
        (b"\x1b", 2, 1, [0, 255, 170, 255]),
        (b"\x1b", 2, 0, [255, 85, 170, 255]),
        (b"\x05\xaf", 4, 5, [0, 255, 170, 255]),
        (b"\x00\x05\x50\xff", 8, 5, [0, 255, 80, 255]),
        (struct.pack(">4H", 0, 1000, 30_000, 65_535), 16, 1000, [0, 255, 117, 255]),
        (struct.pack(">4H", 0, 1000, 30_000, 65_535), 16, 1001, [0, 4, 117, 255]),
    ],
)
def test_one_transparent_grey_is_white_whatever_the_bits(
    tmp_path: Path, row: bytes, bits: int, transparent: int, seen: list[int]
) -> None:
    clear = (b"tRNS", struct.pack(">H", transparent))
    (tmp_path / "a.png").write_bytes(png(4, 1, clear, pixel_row(row), bits=bits, colour=0))
    assert pixels(tmp_path / "a.png")[0, :, 0].tolist() == seen
    assert inspect_image(tmp_path / "a.png").fault == ""


@pytest.mark.parametrize(("transparent", "is_white"), [((30_000, 2, 771), True), ((30_000, 2, 3), False)])
def test_one_transparent_colour_of_16_bits_a_channel_is_white(
    tmp_path: Path, transparent: tuple[int, ...], is_white: bool
) -> None:
    """Compared at the 8 bits that pixels are read with."""
    clear = (b"tRNS", struct.pack(">3H", *transparent))
    (tmp_path / "a.png").write_bytes(png(1, 1, clear, pixel_row(struct.pack(">3H", 30_000, 2, 771)), bits=16))
    assert pixels(tmp_path / "a.png").tolist() == [[[255] * 3 if is_white else [117, 0, 3]]]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_upright_by_their_exif_orientation(tmp_path: Path, orientation: int, kind: str) -> None:
    path = tmp_path / "turned"
    turned(path, orientation, kind)
    np.testing.assert_allclose(pixels(path), np.asarray(arrow()).astype(int), atol=12)
    with Image.open(path) as image:
        np.testing.assert_array_equal(pixels(path), np.asarray(ImageOps.exif_transpose(image)).astype(int))


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0garbage",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x63\0\0\0\0\0\0",
    ],
)
def test_broken_exif_data_does_not_spoil_good_pixels(tmp_path: Path, exif: bytes) -> None:
    arrow().save(tmp_path / "a.jpg", quality=95, subsampling=0, exif=exif)
    np.testing.assert_allclose(pixels(tmp_path / "a.jpg"), np.asarray(arrow()).astype(int), atol=12)


def test_the_first_frame_of_an_animated_gif_is_taken(tmp_path: Path) -> None:
    animated_gif(tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as image:
        assert image.n_frames == 2
    np.testing.assert_allclose(pixels(tmp_path / "a.gif"), np.broadcast_to([200, 30, 30], (20, 30, 3)), atol=6)


@pytest.mark.parametrize("name", ["a.jpg", "a.tif"])
def test_cmyk_becomes_the_colours_that_were_meant(tmp_path: Path, name: str) -> None:
    arrow().convert("CMYK").save(tmp_path / name, **({"quality": 95} if name == "a.jpg" else {}))
    inside = (slice(5, 15), slice(5, 25))  # away from the edges that JPEG blurs
    np.testing.assert_allclose(pixels(tmp_path / name)[inside], np.asarray(arrow()).astype(int)[inside], atol=8)


def test_transparent_pixels_are_white(tmp_path: Path) -> None:
    """In a palette, in grey, in RGB with one transparent colour, and in RGBA with half-transparent pixels, whatever
    colour hides there.
    """
    red = Image.new("P", (2, 1))
    red.putpalette([255, 0, 0, 0, 0, 0])
    red.putpixel((1, 0), 1)
    red.save(tmp_path / "palette.png", transparency=1)
    red.save(tmp_path / "palette.gif", transparency=1)
    rgb = Image.new("RGB", (2, 1), (255, 0, 0))
    rgb.putpixel((1, 0), (1, 2, 3))
    rgb.save(tmp_path / "rgb.png", transparency=(1, 2, 3))
    rgba = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    rgba.putpixel((1, 0), (0, 0, 0, 0))
    rgba.save(tmp_path / "rgba.png")
    rgba.save(tmp_path / "rgba.webp", lossless=True, exact=True)
    for name in ("palette.png", "palette.gif", "rgb.png", "rgba.png", "rgba.webp"):
        assert pixels(tmp_path / name).tolist() == [[[255, 0, 0], [255, 255, 255]]], name
    grey = Image.new("LA", (2, 1), (0, 255))
    grey.putpixel((1, 0), (0, 51))  # a fifth of black over white
    grey.save(tmp_path / "grey.png")
    assert pixels(tmp_path / "grey.png")[0, :, 0].tolist() == [0, 204]


@pytest.mark.parametrize(("alphas", "seen"), [((0, 0), [30, 60]), ((0, 255), [255, 60]), ((51, 0), [210, 255])])
def test_an_alpha_channel_of_zeros_hides_no_bmp(tmp_path: Path, alphas: tuple[int, int], seen: list[int]) -> None:
    """Many programs leave the fourth byte of each pixel empty and call it alpha."""
    row = bytes([30, 30, 30, alphas[0], 60, 60, 60, alphas[1]])
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    info = struct.pack("<IiiHHIIiiII", 108, 2, 1, 1, 32, 3, len(row), 0, 0, 0, 0) + masks.ljust(68, b"\0")
    size = 14 + len(info)
    (tmp_path / "a.bmp").write_bytes(b"BM" + struct.pack("<IHHI", size + len(row), 0, 0, size) + info + row)
    assert pixels(tmp_path / "a.bmp")[0, :, 0].tolist() == seen
    assert inspect_image(tmp_path / "a.bmp").fault == ""


def test_a_palette_keeps_its_colours(tmp_path: Path) -> None:
    arrow().quantize(8).save(tmp_path / "a.png")
    np.testing.assert_allclose(pixels(tmp_path / "a.png"), np.asarray(arrow()).astype(int), atol=4)


@pytest.mark.parametrize(
    "name", ["Füchse im Schnee.jpg", "狐 の 写真.png", "a  b\u00a0c.webp", "%20+&;'\".bmp", "no suffix", "wrong.txt"]
)
def test_names_do_not_matter(tmp_path: Path, name: str) -> None:
    kind = {"jpg": "JPEG", "webp": "WEBP", "bmp": "BMP"}.get(name.rpartition(".")[2], "PNG")
    arrow().save(tmp_path / name, kind)
    assert read_rgb(tmp_path / name).size == (60, 40)
    assert inspect_image(tmp_path / name).fault == ""


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_is_read(tmp_path: Path, kind: str) -> None:
    arrow().save(tmp_path / "a", kind)
    assert read_rgb(tmp_path / "a").size == (60, 40)


def refusals(path: Path) -> tuple[str, str]:
    """What ingest and what training say of a file that both must refuse."""
    with pytest.raises(DataError) as caught:
        Transform(8, (0.5,) * 3, (0.5,) * 3, "bicubic", random_views=1).tensor(path.parent, path.name, "0" * 64)
    assert caught.value.problems[0].where == str(path)
    return inspect_image(path).fault, caught.value.problems[0].what


@pytest.mark.parametrize("kind", ["PPM", "JPEG2000", "ICO", "PCX", "EPS", "PDF"])
def test_other_formats_are_refused(tmp_path: Path, kind: str) -> None:
    arrow((64, 64)).save(tmp_path / "a.png", kind)
    for refusal in refusals(tmp_path / "a.png"):
        assert "not a picture (JPEG, PNG, GIF, BMP, TIFF, WEBP are read)" in refusal


def test_a_decompression_bomb_is_refused_at_its_header(tmp_path: Path) -> None:
    bomb(tmp_path / "bomb.png", 60_000)
    assert (tmp_path / "bomb.png").stat().st_size < 4_000_000
    started = time.perf_counter()
    for refusal in refusals(tmp_path / "bomb.png"):
        assert "178,956,970 pixels" in refusal
    assert time.perf_counter() - started < 1


@pytest.mark.parametrize(("options", "words"), [([], ""), (["-W", "always"], "DecompressionBombWarning")])
def test_pillow_does_not_warn_of_a_size_that_is_taken(tmp_path: Path, options: list[str], words: str) -> None:
    """Only where the user wants all warnings; in a process of its own, since pytest shows all."""
    Image.new("L", (12_000, 9_000)).save(tmp_path / "large.jpg")
    code = "import sys, pathlib; from capnet.data.images import decode\n"
    code += "with decode.open_image(pathlib.Path(sys.argv[1])): pass"
    command = [sys.executable, *options, "-c", code, str(tmp_path / "large.jpg")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert words in done.stderr
    assert bool(words) == bool(done.stderr)


def test_files_without_pixels_are_refused_with_a_reason(tmp_path: Path) -> None:
    truncated_jpeg(tmp_path / "cut.jpg")
    (tmp_path / "zero.jpg").touch()
    (tmp_path / "text.jpg").write_text("<html>404</html>")
    (tmp_path / "folder.jpg").mkdir()
    for name, reason in (
        ("cut.jpg", "does not decode: .*truncated"),
        ("zero.jpg", "empty file"),
        ("text.jpg", "not a picture"),
        ("folder.jpg", "cannot be read: .*directory"),
        ("gone.jpg", "missing"),
    ):
        for refusal in refusals(tmp_path / name):
            assert re.search(reason, refusal), (name, refusal)


@pytest.mark.parametrize(
    ("mode", "reason"),
    [("F", "without a known range"), ("I", "without a known range"), ("LAB", "cannot be turned into RGB")],
)
def test_pixels_without_a_meaning_are_refused(tmp_path: Path, mode: str, reason: str) -> None:
    Image.new(mode, (20, 20)).save(tmp_path / "a.tif")
    for refusal in refusals(tmp_path / "a.tif"):
        assert reason in refusal


def test_every_cut_of_a_file_is_a_picture_or_a_reason(tmp_path: Path) -> None:
    """Never another exception, wherever the bytes end and whatever byte is wrong."""
    rng = np.random.default_rng(0)
    for kind in FORMATS:
        arrow().save(tmp_path / "whole", kind)
        whole = (tmp_path / "whole").read_bytes()
        for _ in range(60):
            data = bytearray(whole[: rng.integers(1, len(whole))] if rng.random() < 0.5 else whole)
            for workspace in rng.integers(0, len(data), rng.integers(0, 4)):
                data[workspace] = rng.integers(256)
            with contextlib.suppress(Unusable), open_image(bytes(data)) as image:
                assert to_rgb(image).mode == "RGB"
