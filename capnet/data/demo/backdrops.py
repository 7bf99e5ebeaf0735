"""The places of the demo pictures, rooms apart: each paints itself and says where on it things may stand, fly or
swim.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from PIL import Image

from capnet.data.demo.brush import DAYTIMES, SIDE, Bands, Box, Brush, Colour, dark, light, mix, vary
from capnet.data.demo.rooms import INDOORS

DAYTIME_SHARES = (5, 7, 3, 4, 2)
# light on the whole picture; powers of two in the denominators keep the sums exact
TINTS: dict[str, tuple[float, float, float]] = {
    "morning": (1.03125, 0.984375, 0.9375),
    "noon": (1.0, 1.0, 1.0),
    "grey": (0.9375, 0.953125, 0.96875),
    "evening": (1.0, 0.890625, 0.84375),
    "night": (0.65625, 0.703125, 0.90625),
}


@dataclass(frozen=True)
class Backdrop:
    """A painted place of [SIDE, SIDE] pixels, the light that lies on it, where things may stand and what is taken."""

    image: Image.Image
    bands: Bands
    tint: tuple[float, float, float]
    taken: tuple[Box, ...] = ()  # what nothing may hide: windows


def _meadow(brush: Brush, horizon: int, near: Colour, far: Colour) -> None:
    """Two hill lines and a field that darkens towards the front."""
    rng = brush.rng
    brush.ridge(horizon - rng.randint(8, 18), 9, rng.randint(2, 4), light(far, 3))
    brush.ridge(horizon - 2, 4, rng.randint(2, 5), far)
    brush.gradient(horizon + 5, SIDE, mix(far, near, 1, 2), near)


def _farm(brush: Brush, horizon: int) -> Bands:
    rng = brush.rng
    green = vary(rng, (126, 176, 78))
    _meadow(brush, horizon, green, vary(rng, (148, 186, 92)))
    if rng.random() < 0.5:  # a ploughed field
        soil = vary(rng, (168, 128, 84))
        for row in range(5):
            y = horizon + 8 + row * (4 + row)
            brush.shape([(0, y), (SIDE, y + 3), (SIDE, y + 6 + row), (0, y + 3 + row)], soil)
    if rng.random() < 0.7:  # a fence
        y, wood = horizon + rng.randint(2, 10), vary(rng, (150, 112, 76))
        for x in range(rng.randint(0, 20), SIDE, 26):
            brush.box(x, y - 12, x + 3, y + 4, wood)
        for rail in (9, 3):
            brush.line(0, y - rail, SIDE, y - rail, wood, 2)
    brush.tufts(horizon + 14, dark(green, 3), 26)
    return {"ground": (horizon + 14, SIDE - 6), "sky": (18, horizon - 30)}


def _street(brush: Brush, horizon: int) -> Bands:
    rng = brush.rng
    x, wall = -rng.randint(0, 20), vary(rng, (150, 158, 178), 18)
    while x < SIDE:  # a skyline far off
        width, height = rng.randint(16, 34), rng.randint(18, 58)
        shade = light(vary(rng, wall, 12), rng.randint(1, 3))
        brush.box(x, horizon - height, x + width, horizon + 4, shade)
        for wx in range(x + 4, x + width - 4, 6):
            for wy in range(horizon - height + 5, horizon - 4, 8):
                brush.box(wx, wy, wx + 3, wy + 4, light(shade, 4) if rng.random() < 0.6 else dark(shade, 2))
        x += width + rng.randint(0, 3)
    pave, road = vary(rng, (196, 190, 182)), vary(rng, (104, 108, 118))
    kerb = horizon + rng.randint(20, 34)
    brush.box(0, horizon, SIDE, kerb, pave)
    for x in range(rng.randint(0, 14), SIDE, 18):
        brush.line(x, horizon, x - 8, kerb, dark(pave, 1))
    brush.box(0, kerb, SIDE, kerb + 3, light(pave, 4))
    brush.gradient(kerb + 3, SIDE, light(road, 1), road)
    middle = kerb + (SIDE - kerb) // 2
    for x in range(-rng.randint(0, 40), SIDE, 46):
        brush.shape([(x + 3, middle), (x + 27, middle), (x + 24, middle + 5), (x - 1, middle + 5)], (236, 232, 214))
    return {"ground": (horizon + 14, SIDE - 6), "sky": (18, horizon - 34)}


def _beach(brush: Brush, horizon: int) -> Bands:
    rng = brush.rng
    shore = horizon + rng.randint(34, 46)
    sea, sand = vary(rng, (96, 184, 224), 10), vary(rng, (238, 214, 158), 10)
    brush.gradient(horizon, shore + 10, dark(sea, 1), light(sea, 2))
    brush.waves(horizon + 5, shore - 6, light(sea, 5))
    brush.ridge(shore, 4, 5, (250, 250, 246))
    brush.ridge(shore + 4, 4, 5, dark(sand, 1))
    brush.ridge(shore + 9, 4, 4, sand)
    brush.specks(shore + 16, [dark(sand, 1), dark(sand, 2), light(sand, 5)], 40)
    return {"ground": (shore + 24, SIDE - 5), "water": (horizon + 20, shore - 4), "sky": (18, horizon - 28)}


def _sea(brush: Brush, horizon: int) -> Bands:
    rng = brush.rng
    horizon = min(horizon, 96)
    sea, deep = vary(rng, (120, 196, 236), 10), vary(rng, (36, 96, 168), 12)
    if rng.random() < 0.5:  # an island far off
        x = rng.randint(20, SIDE - 20)
        brush.oval(x, horizon + 2, rng.randint(30, 60), rng.randint(8, 18), mix(sea, (96, 140, 120), 1, 2))
    surface = horizon + 40
    brush.gradient(horizon, surface + 4, dark(sea, 1), light(sea, 1))
    brush.waves(horizon + 5, surface - 4, light(sea, 5))
    brush.ridge(surface, 3, 7, light(sea, 6))
    brush.ridge(surface + 3, 3, 7, sea)
    brush.gradient(surface + 8, SIDE, sea, deep)
    for _ in range(rng.randint(8, 18)):  # bubbles
        x, y, radius = rng.randint(4, SIDE - 4), rng.randint(surface + 14, SIDE - 6), rng.randint(1, 4)
        brush.oval(x, y, radius, radius, light(sea, 4), outline=2)
    return {"water": (horizon + 18, surface + 2), "deep": (surface + 32, SIDE - 28), "sky": (18, horizon - 26)}


def _pitch(brush: Brush, horizon: int) -> Bands:
    rng = brush.rng
    green = vary(rng, (104, 176, 88))
    stand = vary(rng, (132, 140, 160))
    if rng.random() < 0.6:  # a stand with spectators as dots
        brush.box(0, horizon - 26, SIDE, horizon, stand)
        for y in range(horizon - 22, horizon - 4, 6):
            for x in range(rng.randint(0, 4), SIDE, 6):
                if rng.random() < 0.7:
                    brush.oval(x, y, 1, 1, vary(rng, (214, 180, 150), 40))
        brush.box(0, horizon - 5, SIDE, horizon, light(stand, 4))
    else:
        brush.ridge(horizon - 6, 5, 4, dark(green, 2))
    for stripe in range(8):
        top = horizon + (SIDE - horizon) * stripe * (stripe + 5) // 104
        bottom = horizon + (SIDE - horizon) * (stripe + 1) * (stripe + 6) // 104
        brush.box(0, top, SIDE, max(bottom, top + 1), green if stripe % 2 else light(green, 1))
    line = light(green, 8)
    y = horizon + rng.randint(24, 40)
    brush.line(0, y, SIDE, y + rng.randint(-3, 3), line, 2)
    x = rng.randint(70, SIDE - 70)
    brush.oval(x, y + 42, 60, 22, line, outline=4)
    return {"ground": (horizon + 14, SIDE - 6), "sky": (18, horizon - 34)}


def _forest(brush: Brush, horizon: int) -> Bands:
    rng = brush.rng
    leaf = vary(rng, (70, 128, 78), 14)
    for row, tenths in ((34, 4), (20, 2), (6, 0)):  # layers of shrubs that grow darker towards the front
        colour = light(leaf, tenths)
        for x in range(-8, SIDE + 20, 13):
            left, top = x + rng.randint(-5, 5), horizon - row + rng.randint(-4, 6) + 8
            brush.oval(left, top, rng.randint(11, 18), rng.randint(11, 18), colour)
        brush.box(0, horizon - row + 12, SIDE, horizon + 10, colour)
    floor = vary(rng, (124, 132, 76))
    brush.gradient(horizon + 8, SIDE, dark(floor, 2), floor)
    if rng.random() < 0.6:  # a path
        x, path = rng.randint(70, 150), vary(rng, (176, 150, 108))
        right, left = x + rng.randint(40, 70), x - rng.randint(20, 60)
        brush.shape([(x - 5, horizon + 8), (x + 6, horizon + 8), (right, SIDE), (left, SIDE)], path)
    brush.specks(horizon + 12, [dark(floor, 2), (176, 116, 62), (196, 158, 70)], 46)
    brush.tufts(horizon + 12, dark(leaf, 1), 24, 6)
    return {"ground": (horizon + 14, SIDE - 6), "sky": (18, horizon - 34)}


def _garden(brush: Brush, horizon: int) -> Bands:
    rng = brush.rng
    lawn = vary(rng, (140, 192, 92))
    hedge, fence = vary(rng, (84, 142, 80)), vary(rng, (224, 214, 196))
    if rng.random() < 0.5:
        for x in range(-4, SIDE + 12, 10):
            brush.oval(x, horizon - 18 + rng.randint(-3, 3), 10, 10, hedge)
        brush.box(0, horizon - 18, SIDE, horizon + 4, hedge)
    else:
        for x in range(rng.randint(-8, 0), SIDE, 13):
            foot, head = horizon + 4, horizon - 22
            brush.shape([(x, foot), (x, head), (x + 5, head - 6), (x + 10, head), (x + 10, foot)], fence)
        brush.box(0, horizon - 14, SIDE, horizon - 10, dark(fence, 1))
    brush.gradient(horizon + 4, SIDE, lawn, dark(lawn, 1))
    if rng.random() < 0.6:  # stepping stones
        x = rng.randint(40, SIDE - 40)
        for step in range(5):
            left, top = x + step * rng.randint(-6, 10), horizon + 14 + step * (14 + step * 2)
            brush.oval(left, top, 9 + 3 * step, 3 + step, (206, 202, 192))
    brush.tufts(horizon + 10, dark(lawn, 3), 28)
    brush.specks(horizon + 10, [(255, 255, 255), light(lawn, 5)], 16)
    return {"ground": (horizon + 14, SIDE - 6), "sky": (18, horizon - 36)}


def _savanna(brush: Brush, horizon: int) -> Bands:
    rng = brush.rng
    grass = vary(rng, (214, 184, 104))
    if rng.random() < 0.6:  # a mountain far off
        x, blue = rng.randint(40, SIDE - 40), vary(rng, (150, 150, 178))
        foot = horizon + 4
        brush.shape([(x - 80, foot), (x - 18, horizon - 36), (x + 14, horizon - 34), (x + 84, foot)], blue)
    _meadow(brush, horizon, grass, vary(rng, (200, 178, 112)))
    if rng.random() < 0.5:  # a water hole
        x, y = rng.randint(50, SIDE - 50), horizon + rng.randint(24, 60)
        brush.oval(x, y, 48, 10, dark(grass, 2))
        brush.oval(x, y + 1, 44, 8, (132, 186, 206))
    brush.tufts(horizon + 10, dark(grass, 3), 60, 8)
    return {"ground": (horizon + 14, SIDE - 6), "sky": (18, horizon - 30)}


def _snow(brush: Brush, horizon: int) -> Bands:
    rng = brush.rng
    snow = vary(rng, (236, 242, 250), 6)
    for _ in range(rng.randint(1, 3)):  # peaks
        x, height, rock = rng.randint(10, SIDE - 10), rng.randint(34, 60), vary(rng, (140, 156, 184))
        top = horizon - height
        brush.shape([(x - height - 20, horizon + 4), (x, top), (x + height + 20, horizon + 4)], rock)
        brush.shape([(x - 16, top + 14), (x, top), (x + 16, top + 14), (x + 5, top + 10), (x - 4, top + 16)], snow)
    brush.ridge(horizon - 4, 6, 4, dark(snow, 1))
    brush.ridge(horizon + 4, 5, 3, snow)
    brush.gradient(horizon + 10, SIDE, snow, mix(snow, (190, 212, 238), 1, 2))
    for _ in range(5):
        y = rng.randint(horizon + 20, SIDE - 6)
        brush.oval(rng.randint(0, SIDE), y, rng.randint(24, 50), 3, mix(snow, (176, 200, 230), 1, 3))
    return {"ground": (horizon + 14, SIDE - 6), "sky": (18, horizon - 34)}


OUTDOORS: dict[str, Callable[[Brush, int], Bands]] = {
    "street": _street,
    "farm": _farm,
    "beach": _beach,
    "sea": _sea,
    "sports field": _pitch,
    "forest": _forest,
    "garden": _garden,
    "savanna": _savanna,
    "snow": _snow,
}


def paint(scene: str, rng: Random) -> Backdrop:
    """Paint the place called ``scene``; equal generators give equal pixels."""
    brush = Brush(rng)
    daytime = rng.choices(list(DAYTIMES), DAYTIME_SHARES)[0]
    if scene in INDOORS:
        bands, tint = INDOORS[scene](brush, daytime), TINTS["noon" if daytime != "night" else "grey"]
    else:
        horizon = rng.randint(86, 106)
        brush.sky(daytime, horizon)
        bands, tint = OUTDOORS[scene](brush, horizon), TINTS[daytime]
    return Backdrop(brush.finish(), bands, tint, tuple(brush.taken))
