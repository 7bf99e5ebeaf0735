"""The built-in demo set: OpenMoji pictograms in drawn places, so that labels co-occur as they do in photos."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from random import Random

from PIL import Image, ImageDraw, ImageFilter

from capnet.data.demo.backdrops import Backdrop, paint
from capnet.data.demo.brush import SIDE, Bands, Box
from capnet.data.demo.catalogue import ALSO_SHOWS, KINDS, KNOWN, SCENES, SPLIT_ROWS, STANDS_ON, UNSEEN, Kind, Scene
from capnet.data.demo.pictograms import pictogram, sprite

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
    "sky": (50, 70),
    "wall": (52, 64),
    "water": (54, 74),
    "deep": (56, 84),
    "table": (54, 72),
    "ground": (54, 92),
    "floor": (64, 94),
}
_BY_NAME = {kind.name: kind for kind in KINDS}


@dataclass(frozen=True)
class Thing:
    """A pictogram in its place: ``sprite`` RGBA with its upper left corner at ``left``, ``top``; ``foot`` is its depth
    in the band.
    """

    code: int
    sprite: Image.Image
    left: int
    top: int
    band: str
    foot: int

    @property
    def box(self) -> Box:
        return self.left, self.top, self.left + self.sprite.width, self.top + self.sprite.height


@dataclass(frozen=True)
class Arrangement:
    """What an image is made of: things are in painting order, the farthest first; labels in the order of the
    classes.
    """

    scene: str
    backdrop: Backdrop
    things: tuple[Thing, ...]
    labels: tuple[str, ...]


def split_and_slice(index: int) -> tuple[str, str]:
    """The split that image ``index`` belongs to, and its slice; every second test image is unseen artwork."""
    start = 0
    for split, rows in SPLIT_ROWS.items():
        if index < start + rows:
            if split != "test":
                return split, ""
            return split, UNSEEN if (index - start) % 2 else KNOWN
        start += rows
    raise ValueError(f"the demo set has {start} images, there is no number {index}")


@lru_cache(maxsize=1)
def _soft_spot() -> Image.Image:
    """A blurred oval, L: the mask of a shadow on the ground."""
    spot = Image.new("L", (96, 40))
    ImageDraw.Draw(spot).ellipse((12, 9, 84, 31), fill=130)
    return spot.filter(ImageFilter.GaussianBlur(5))


def _band(bands: Sequence[str], bands_at: Bands, rng: Random) -> str:
    """One of ``bands`` that the place has, the first one most often; "" where it has none."""
    possible = [band for band in bands if band in bands_at]
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


def _best_position(
    code: int, band: str, kind: Kind | None, bands_at: Bands, taken: Sequence[Box], rng: Random
) -> tuple[Thing, float]:
    """The best of some places for a pictogram, with the largest overlap it has there."""
    first, last = bands_at[band]
    far, near = SIZES[band]
    best, least = None, 2.0
    drawing = pictogram(code)
    # what is long and thin may be longer, so that all look equally large
    slim = min(2.2, max(drawing.size) / min(drawing.size))
    factor = (kind.size if kind else 0.9) * (0.7 + 0.24 * slim) * rng.uniform(0.86, 1.14)
    depth = rng.random()
    size = min(LARGEST, max(SMALLEST, round((far + (near - far) * depth) * factor)))
    drawn = sprite(code, size, kind.tilt if kind else 10, band, rng)
    for _ in range(TRIES):
        foot = first + round((last - first) * min(1.0, max(0.0, depth + rng.uniform(-0.15, 0.15))))
        top = foot - (drawn.height if band not in ("sky", "deep", "wall") else drawn.height // 2)
        top = min(max(top, 2), SIDE - drawn.height - 2)
        left = rng.randint(2, max(2, SIDE - drawn.width - 2))
        candidate = Thing(code, drawn, left, top, band, foot)
        overlap = max((_overlap(candidate.box, other) for other in taken), default=0.0)
        if overlap < least:
            best, least = candidate, overlap
        if overlap < CROWDED:
            break
    assert best is not None
    return best, least


def _candidates(scene: Scene, bands_at: Bands, rng: Random) -> Iterator[Kind]:
    """Classes without end that may stand in the place, most of them at home in the scene, some strangers."""
    home = list(scene.classes)
    away = [
        kind.name for kind in KINDS if kind.name not in scene.classes and any(band in bands_at for band in kind.bands)
    ]
    while True:
        name = rng.choice(away) if rng.random() < STRANGERS else rng.choices(home, list(scene.classes.values()))[0]
        yield _BY_NAME[name]


def arrange(seed: int, index: int) -> Arrangement:
    """Choose a place and what is in it; image ``index`` of the set ``seed`` depends on these two numbers alone."""
    unseen = split_and_slice(index)[1] == UNSEEN
    rng = Random(f"capnet-demo/{seed}/{index}")
    scene = rng.choices(SCENES, [scene.share for scene in SCENES])[0]
    backdrop = paint(scene.name, rng)
    n_labels = rng.choices(range(FEWEST_LABELS, MOST_LABELS + 1), LABEL_SHARES)[0]
    things: list[Thing] = []
    taken = list(backdrop.taken)
    labels: set[str] = set()
    for kind in islice(_candidates(scene, backdrop.bands, rng), 40):
        code = rng.choice(kind.unseen if unseen else kind.known)
        shows = {kind.name, *ALSO_SHOWS.get(code, ())}
        band = _band((STANDS_ON[code],) if code in STANDS_ON else kind.bands, backdrop.bands, rng)
        if kind.name in labels or not band or len(labels | shows) > MOST_LABELS:
            continue
        for _ in range(2 if rng.random() < TWINS else 1):
            thing, overlap = _best_position(code, band, kind, backdrop.bands, taken, rng)
            if overlap < TOO_CROWDED:
                things.append(thing)
                taken.append(thing.box)
                labels |= shows
        if len(labels) >= n_labels:
            break
    for code in rng.sample(list(scene.bystanders), rng.choices(range(3), BYSTANDER_SHARES)[0]):
        thing, overlap = _best_position(code, scene.bystanders[code], None, backdrop.bands, taken, rng)
        if overlap < CROWDED:
            things.append(thing)
            taken.append(thing.box)
    things.sort(key=lambda thing: (LAYERS[thing.band], thing.foot))
    return Arrangement(scene.name, backdrop, tuple(things), tuple(kind.name for kind in KINDS if kind.name in labels))


def draw(seed: int, index: int) -> tuple[Image.Image, tuple[str, ...]]:
    """Image ``index`` of the set ``seed``, RGB [SIDE, SIDE], and its labels in the order of the classes."""
    arrangement = arrange(seed, index)
    return compose(arrangement), arrangement.labels


def compose(arrangement: Arrangement) -> Image.Image:
    """The place with everything in it, under the light of the hour."""
    image = arrangement.backdrop.image.copy()
    for thing in arrangement.things:
        _shadow(image, thing)
        image.paste(thing.sprite, (thing.left, thing.top), thing.sprite)
    red, green, blue = arrangement.backdrop.tint
    return image.convert("RGB", (red, 0.0, 0.0, 0.0, 0.0, green, 0.0, 0.0, 0.0, 0.0, blue, 0.0))


def _shadow(image: Image.Image, thing: Thing) -> None:
    """A soft oval under what stands, a moved silhouette behind what hangs, nothing under what flies or swims."""
    width, bottom = thing.sprite.width, thing.top + thing.sprite.height
    if thing.band == "wall":
        silhouette = thing.sprite.getchannel("A").point([level * 5 // 16 for level in range(256)])
        image.paste((30, 30, 50), (thing.left + 3, thing.top + 4), silhouette)
    elif thing.band in ("ground", "floor", "table"):
        height = max(8, width // 4)
        spot = _soft_spot().resize((width * 9 // 8, height), Image.Resampling.BILINEAR)
        image.paste((24, 28, 44), (thing.left - width // 16, bottom - height * 5 // 8), spot)
