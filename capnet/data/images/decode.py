"""Decode one picture file into RGB pixels, or say why it cannot be used. No torch, so that worker processes start
fast.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from capnet.data.images.shards import file_or_bytes

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP")  # raster only: Pillow hands EPS to another program
SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp")  # how their files usually end
RANGELESS = {"I", "F"}  # 32-bit pixels: nothing in the file says which value is white
CONVERTED = {
    "1",
    "L",
    "LA",
    "La",
    "P",
    "PA",
    "RGB",
    "RGBA",
    "RGBa",
    "RGBX",
    "CMYK",
    "YCbCr",
    "I;16",
    "I;16L",
    "I;16B",
    "I;16N",
}
ORIENTATION = 0x0112  # EXIF tag
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
BEHIND = (255, 255, 255)  # what shows through transparent pixels, as on a white page


class Unusable(Exception):
    """A picture file cannot be used; the text says why."""


def open_image(source: Path | bytes) -> Image.Image:
    """Open a picture and read its header only; the caller closes it.

    Raises:
        Unusable: missing, empty, of another format, too large to decode safely, or with pixels that have no known
            range.
    """
    try:
        size = source.stat().st_size if isinstance(source, Path) else len(source)
        if not size:
            raise Unusable("empty file")
        image = Image.open(source if isinstance(source, Path) else io.BytesIO(source), formats=FORMATS)
    except Unusable:
        raise
    except FileNotFoundError:
        raise Unusable("missing") from None
    except UnidentifiedImageError:
        raise Unusable(f"not a picture ({', '.join(FORMATS)} are read)") from None
    except Image.DecompressionBombError:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise Unusable(f"more than {most:,} pixels: a file that could fill the memory is not decoded") from None
    except Exception as error:  # damaged bytes can raise nearly anything in a decoder
        by_system = isinstance(error, OSError) and error.errno is not None
        raise Unusable(f"{'cannot be read' if by_system else 'does not decode'}: {error}") from None
    if image.mode in RANGELESS:
        reason = f"32-bit pixels (mode {image.mode}) without a known range: save it with 8 or 16 bits"
    elif image.mode not in CONVERTED:
        reason = f"pixels of mode {image.mode} cannot be turned into RGB"
    else:
        return image
    image.close()
    raise Unusable(reason)


def read_rgb(path: Path, needed: Callable[[tuple[int, int]], tuple[int, int]] | None = None) -> Image.Image:
    """Decode a picture, of a file or in a shard, as ``to_rgb`` says.

    Args:
        path: of the picture.
        needed: gives, for its width and height, those that are needed; a JPEG is then decoded at the smallest of its
            reduced scales (1/2, 1/4, 1/8) that has them.

    Raises:
        Unusable: missing, damaged, or of a kind that cannot be used.
    """
    try:
        with open_image(file_or_bytes(path)) as image:
            if needed is not None:
                image.draft(None, needed(image.size))
            return to_rgb(image)
    except FileNotFoundError:
        raise Unusable("missing") from None
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise Unusable(f"cannot be read: {error}") from None


def to_rgb(image: Image.Image) -> Image.Image:
    """The first frame in 8-bit RGB, upright by its EXIF orientation, 16 bits scaled to 8, transparency on white; CMYK
    as Pillow converts it.

    Raises:
        Unusable: the file is damaged or truncated.
    """
    try:
        image.load()
        if image.mode.startswith("I;16"):
            values = np.asarray(image).astype(np.uint32)  # Pillow's own conversion clips at 255
            rgb = Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")
        elif image.has_transparency_data:
            rgb = Image.new("RGB", image.size, BEHIND)
            layer = image.convert("RGBA")
            rgb.paste(layer, mask=layer.getchannel("A"))
        else:
            rgb = image.convert("RGB")
    except Exception as error:  # damaged bytes can raise nearly anything in a decoder
        raise Unusable(f"does not decode: {error}") from None
    return upright(rgb, image)


def upright(pixels: Image.Image, source: Image.Image) -> Image.Image:
    """``pixels`` turned and mirrored as the EXIF data of ``source`` says; damaged EXIF data turns nothing, as in any
    viewer.
    """
    try:
        orientation = source.getexif().get(ORIENTATION)
    except Exception:  # cameras and editors write all kinds of broken EXIF data around good pixels
        return pixels
    return pixels.transpose(TURNS[orientation]) if orientation in TURNS else pixels
