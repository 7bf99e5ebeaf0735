"""What Pillow gets wrong in some files, corrected after their header is read and before their pixels are."""

from __future__ import annotations

from PIL import Image, ImagePalette
from PIL.TiffImagePlugin import TiffImageFile

SHALLOW = {"L;2": 85, "L;4": 17}  # grey pixels of a PNG with 2 and 4 bits, and what Pillow multiplies them by
SUBFILE, BITS, PHOTOMETRIC, SAMPLES, PLANAR, COLOURS, PAGES = 254, 258, 262, 277, 284, 320, 330  # tags of TIFF
WHITE_IS_ZERO, IN_PLANES = 0, 2  # values of two: of scans and X-rays, and of channels one after the other
REDUCED = 1  # a bit of the first tag


def repair_header(image: Image.Image) -> None:
    """Correct what Pillow made of the header of an image that is not decoded yet."""
    if image.format == "PNG" and "transparency" in image.info:
        _repair_transparency(image)
    if isinstance(image, TiffImageFile) and image.tag_v2.get(PLANAR) == IN_PLANES:
        _repair_planes(image)
    if isinstance(image, TiffImageFile) and image.mode == "P":
        _repair_palette(image)


def is_reduced(image: Image.Image) -> bool:
    """Is the first page of a TIFF a small copy of a later one, as in raw files of cameras?"""
    if not isinstance(image, TiffImageFile):
        return False
    flags = image.tag_v2.get(SUBFILE)
    return isinstance(flags, int) and bool(flags & REDUCED) and (PAGES in image.tag_v2 or bool(image.tag_v2.next))


def _repair_transparency(image: Image.Image) -> None:
    """Pillow turns grey of 2 and 4 bits and RGB of 16 bits a channel into 8 bits, but not the one transparent colour
    that a PNG may name.
    """
    clear, stored = image.info["transparency"], next((tile.args for tile in vars(image)["tile"]), "")
    if stored in SHALLOW:
        image.info["transparency"] = SHALLOW[stored] * clear
    elif stored == "RGB;16B":
        image.info["transparency"] = tuple(value >> 8 for value in clear)


def _repair_planes(image: TiffImageFile) -> None:
    """In planes without compression, Pillow takes 16 bits for 8; of a single plane it forgets that 0 may be white."""
    if image.tag_v2.get(SAMPLES, 1) == 1:
        image.tag_v2[PLANAR] = 1
        image._setup()
    elif {*image.tag_v2.get(BITS, ())} == {16}:
        order = "B" if image.tag_v2.prefix == b"MM" else "L"
        for number, tile in enumerate(image.tile):
            if tile.codec_name == "raw" and isinstance(tile.args, tuple):
                band, *more = tile.args
                image.tile[number] = tile._replace(args=(f"{band};16{order}", *more))


def _repair_palette(image: TiffImageFile) -> None:
    """Some programs write colours with 8 bits where TIFF has 16, which are all black; libtiff sees it in this way."""
    colours = image.tag_v2[COLOURS]
    if max(colours) < 256:
        image.palette = ImagePalette.raw("RGB;L", bytes(colours))


def is_clear_bmp(image: Image.Image) -> bool:
    """Has a decoded BMP an alpha channel that nobody filled in? Its colours are shown then, as in browsers."""
    return image.format == "BMP" and image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0)


def is_white_zero(image: Image.Image) -> bool:
    """Is 0 white in this TIFF? Pillow inverts such values where they have up to 8 bits, and leaves 16 bits alone."""
    return isinstance(image, TiffImageFile) and image.tag_v2.get(PHOTOMETRIC) == WHITE_IS_ZERO
