"""The rooms of the demo pictures: a wall with a window, and floor or a table top before it."""

from __future__ import annotations

from collections.abc import Callable

from capnet.data.demo.brush import DAYTIMES, SCALE, SIDE, Bands, Brush, Colour, blend, dark, light, vary


def _wall(brush: Brush, foot: int, colour: Colour) -> None:
    """A wall with a pattern or none, down to row ``foot``."""
    rng = brush.rng
    brush.gradient(0, foot, light(colour, 1), colour)
    pattern = rng.randrange(4)
    if pattern == 0:
        for x in range(rng.randint(0, 12), SIDE, 16):
            brush.box(x, 0, x + 6, foot, light(colour, 2))
    elif pattern == 1:
        for row, y in enumerate(range(8, foot - 6, 16)):
            for x in range(6 + 8 * (row % 2), SIDE, 16):
                brush.oval(x, y, 2, 2, light(colour, 4))


def _window(brush: Brush, daytime: str, left: int, top: int) -> None:
    """A window that shows the sky."""
    high, low = DAYTIMES[daytime]
    brush.box(left - 3, top - 3, left + 55, top + 51, (250, 248, 240))
    brush.image.paste(blend(52 * SCALE, 48 * SCALE, high, low), (left * SCALE, top * SCALE))
    brush.box(left + 24, top, left + 27, top + 48, (250, 248, 240))
    brush.box(left, top + 22, left + 52, top + 25, (250, 248, 240))
    brush.box(left - 6, top + 51, left + 58, top + 55, (232, 226, 214))
    brush.taken.append((left - 6, top - 3, left + 58, top + 55))


def _living_room(brush: Brush, daytime: str) -> Bands:
    rng = brush.rng
    foot = rng.randint(104, 124)
    colours = [(222, 196, 176), (186, 204, 198), (198, 190, 216), (232, 214, 166), (176, 196, 220)]
    paint = vary(rng, rng.choice(colours), 8)
    _wall(brush, foot, paint)
    if rng.random() < 0.6:
        _window(brush, daytime, rng.choice([14, 86, 154]), 16)
    brush.box(0, foot - 6, SIDE, foot, light(paint, 6))
    wood = vary(rng, (190, 146, 104))
    brush.gradient(foot, SIDE, dark(wood, 1), wood)
    for row in range(7):
        y = foot + 3 + row * (6 + row * 2)
        brush.line(0, y, SIDE, y, dark(wood, 2))
        for x in range(rng.randint(0, 60), SIDE, 70):
            brush.line(x, y, x, y + 8 + row * 2, dark(wood, 2))
    if rng.random() < 0.75:
        rug = vary(rng, rng.choice([(186, 92, 84), (94, 130, 156), (216, 188, 132), (134, 154, 110)]))
        x, y = rng.randint(80, 144), foot + rng.randint(50, 66)
        for shrink, tenths in ((0, 0), (8, 3), (14, 0)):
            brush.oval(x, y, 88 - shrink, 30 - shrink // 2, light(rug, tenths))
    return {"floor": (foot + 16, SIDE - 6), "wall": (28, foot - 34)}


def _desk(brush: Brush, daytime: str, walls: list[Colour], woods: list[Colour], tiles: bool) -> Bands:
    """A wall, a table top across the picture and floor before it, in colours of two palettes."""
    rng = brush.rng
    wall, wood = vary(rng, rng.choice(walls), 8), vary(rng, rng.choice(woods))
    back = rng.randint(104, 114)
    front = back + rng.randint(50, 58)
    if tiles:
        brush.gradient(0, back, light(wall, 1), wall)
        for y in range(rng.randint(2, 12), back, 14):
            brush.line(0, y, SIDE, y, dark(wall, 1))
        for x in range(rng.randint(0, 12), SIDE, 14):
            brush.line(x, 0, x, back, dark(wall, 1))
    else:
        _wall(brush, back + 20, wall)
    if rng.random() < 0.55:
        _window(brush, daytime, rng.choice([12, 84, 156]), 14)
    if tiles:
        brush.box(0, front, SIDE, SIDE, dark(wood, 1))  # cupboards below
        for x in range(rng.randint(-30, 0), SIDE, 58):
            brush.box(x + 3, front + 14, x + 55, SIDE, light(wood, 1))
            brush.box(x + 24, front + 18, x + 34, front + 21, dark(wood, 4))
    else:
        floor = vary(rng, (168, 164, 160))
        brush.gradient(back + 20, SIDE, light(floor, 1), floor)
        for x in (8, SIDE - 22):
            brush.box(x, front, x + 14, SIDE, dark(wood, 3))
    narrow, wide = (0, 0) if tiles else (8, 12)
    brush.shape([(narrow, back), (SIDE - narrow, back), (SIDE + wide, front), (-wide, front)], wood)
    for row in range(3):
        y = back + 9 + row * 16
        brush.line(0, y, SIDE, y + rng.randint(-1, 1), dark(wood, 1))
    brush.box(0, front, SIDE, front + 8, dark(wood, 2))
    bands = {"table": (back + 12, front - 2), "wall": (26, back - 44)}
    return bands if tiles else {**bands, "floor": (SIDE - 12, SIDE - 4)}


def _kitchen(brush: Brush, daytime: str) -> Bands:
    walls = [(214, 226, 226), (236, 222, 190), (198, 216, 196), (226, 206, 206)]
    return _desk(brush, daytime, walls, [(206, 166, 120), (178, 182, 188), (226, 208, 176)], tiles=True)


def _office(brush: Brush, daytime: str) -> Bands:
    walls = [(206, 214, 222), (222, 216, 200), (190, 206, 206), (214, 204, 220)]
    return _desk(brush, daytime, walls, [(196, 152, 108), (158, 122, 92), (220, 196, 160)], tiles=False)


INDOORS: dict[str, Callable[[Brush, str], Bands]] = {
    "living room": _living_room,
    "kitchen": _kitchen,
    "office": _office,
}
