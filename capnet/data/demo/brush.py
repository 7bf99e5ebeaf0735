"""The brush that paints the demo pictures' places: skies, hills, clouds, grass, waves. Whole numbers only, so that
bytes repeat.
"""

from __future__ import annotations

from random import Random

from PIL import Image, ImageDraw

SIDE = 224  # pixels of a finished picture
SCALE = 2  # backdrops are drawn this much larger and reduced, which smooths their edges
CANVAS = SIDE * SCALE

Colour = tuple[int, int, int]
Box = tuple[int, int, int, int]  # left, top, right, bottom
# band -> first and last y (finished pixels) of an object's foot, or of its middle in sky, deep and wall
Bands = dict[str, tuple[int, int]]

DAYTIMES: dict[str, tuple[Colour, Colour]] = {  # sky at the top, sky at the horizon
    "morning": ((150, 198, 236), (255, 226, 196)),
    "noon": ((86, 166, 236), (206, 234, 252)),
    "grey": ((148, 164, 184), (222, 228, 234)),
    "evening": ((98, 92, 168), (255, 176, 124)),
    "night": ((24, 32, 82), (84, 96, 156)),
}


class Brush:
    """A canvas at SCALE times the size with the few shapes that places are made of; coordinates are finished pixels."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.image = Image.new("RGB", (CANVAS, CANVAS))
        self.draw = ImageDraw.Draw(self.image)
        self.taken: list[Box] = []

    def gradient(self, top: int, bottom: int, first: Colour, last: Colour) -> None:
        """Fill the whole width from row ``top`` to row ``bottom`` with a vertical blend of two colours."""
        self.image.paste(blend(CANVAS, max(1, (bottom - top) * SCALE), first, last), (0, top * SCALE))

    def box(self, left: int, top: int, right: int, bottom: int, colour: Colour) -> None:
        self.draw.rectangle((left * SCALE, top * SCALE, right * SCALE - 1, bottom * SCALE - 1), fill=colour)

    def oval(self, x: int, y: int, rx: int, ry: int, colour: Colour, outline: int = 0) -> None:
        """An oval around x and y, filled, or with an ``outline`` of so many unreduced pixels."""
        box = ((x - rx) * SCALE, (y - ry) * SCALE, (x + rx) * SCALE, (y + ry) * SCALE)
        if outline:
            self.draw.ellipse(box, outline=colour, width=outline)
        else:
            self.draw.ellipse(box, fill=colour)

    def shape(self, points: list[tuple[int, int]], colour: Colour) -> None:
        self.draw.polygon([(x * SCALE, y * SCALE) for x, y in points], fill=colour)

    def line(self, x0: int, y0: int, x1: int, y1: int, colour: Colour, width: int = 1) -> None:
        self.draw.line((x0 * SCALE, y0 * SCALE, x1 * SCALE, y1 * SCALE), fill=colour, width=width * SCALE)

    def ridge(self, height: int, swing: int, bumps: int, colour: Colour) -> None:
        """A hill line, filled down to the bottom.

        Args:
            height: row around which it runs.
            swing: rows that it may rise or fall from there.
            bumps: parts of the line, each with an end at a height of its own.
            colour: of the hill.
        """
        knots = [height + self.rng.randint(-swing, swing) for _ in range(bumps + 1)]
        points = [(0, CANVAS)]
        for x in range(0, CANVAS + 1, 8):
            index, rest = divmod(x * bumps, CANVAS)
            first, last = knots[index], knots[min(index + 1, bumps)]
            t = rest * 1024 // CANVAS
            smooth = t * t * (3 * 1024 - 2 * t) // (1024 * 1024)  # smoothstep in 1/1024
            points.append((x, first * SCALE + (last - first) * SCALE * smooth // 1024))
        points.append((CANVAS, CANVAS))
        self.draw.polygon(points, fill=colour)

    def sky(self, daytime: str, horizon: int) -> None:
        """Sky down to the horizon with clouds by day, and a moon with stars by night."""
        rng, (high, low) = self.rng, DAYTIMES[daytime]
        self.gradient(0, horizon + 6, high, low)
        if daytime == "night":
            for _ in range(26):
                x, y = rng.randrange(CANVAS), rng.randrange(max(2, (horizon - 12) * SCALE))
                self.draw.ellipse((x, y, x + rng.randint(1, 3), y + rng.randint(1, 3)), fill=(236, 238, 255))
            x, y = rng.randint(24, SIDE - 24), rng.randint(18, 40)
            self.oval(x, y, 19, 19, mix(high, (255, 255, 255), 1, 9))
            self.oval(x, y, 13, 13, (248, 242, 214))
            self.oval(x + 6, y - 3, 11, 11, mix(high, (255, 255, 255), 1, 9))
            return
        if daytime != "grey" and rng.random() < 0.55:
            x = rng.randint(20, SIDE - 20)
            y = rng.randint(16, 38) if daytime == "noon" else horizon - rng.randint(12, 30)
            glow = (255, 244, 200) if daytime != "evening" else (255, 206, 140)
            for radius, share in ((30, 1), (23, 2), (16, 6)):
                self.oval(x, y, radius, radius, mix(mix(high, low, y, horizon), glow, share, 6))
        for _ in range(rng.randint(1, 4)):
            white = mix(mix(high, low, 1, 2), (255, 255, 255), 3 if daytime != "grey" else 2, 5)
            self.cloud(rng.randint(0, SIDE), rng.randint(12, max(14, horizon - 34)), white)

    def cloud(self, x: int, y: int, colour: Colour) -> None:
        width = self.rng.randint(14, 26)
        for part in range(4):
            radius = self.rng.randint(5, 10)
            self.oval(x - width + part * width * 2 // 3, y - radius // 2, radius + 4, radius, colour)
        self.oval(x, y + 2, width + 6, 5, colour)

    def tufts(self, top: int, colour: Colour, count: int, blade: int = 4) -> None:
        """Tufts of three blades of grass from row ``top`` down, larger towards the front, where a blade has about
        ``blade`` pixels.
        """
        for _ in range(count):
            x, y = self.rng.randint(0, SIDE), self.rng.randint(top, SIDE)
            size = 1 + blade * (y - top + 8) // (SIDE - top + 8)
            for lean in (-1, 0, 1):
                self.draw.line((x * SCALE, y * SCALE, (x + lean * 2) * SCALE, (y - size) * SCALE), fill=colour, width=2)

    def specks(self, top: int, colours: list[Colour], count: int) -> None:
        """Pebbles or petals from row ``top`` down, each in one of ``colours``."""
        for _ in range(count):
            x, y, radius = self.rng.randint(0, SIDE), self.rng.randint(top, SIDE), self.rng.randint(1, 2)
            box = (x * SCALE, y * SCALE, x * SCALE + 2 * radius + 1, y * SCALE + radius + 1)
            self.draw.ellipse(box, fill=self.rng.choice(colours))

    def waves(self, top: int, bottom: int, colour: Colour) -> None:
        for _ in range(12):
            y = self.rng.randint(top, bottom)
            x, width = self.rng.randint(-10, SIDE), 8 + 18 * (y - top) // max(1, bottom - top)
            for part in range(2):
                left = (x + part * width) * SCALE
                box = (left, (y - 3) * SCALE, left + width * SCALE, (y + 3) * SCALE)
                self.draw.arc(box, 200, 340, fill=colour, width=SCALE)

    def finish(self) -> Image.Image:
        return self.image.reduce(SCALE)


def mix(first: Colour, last: Colour, part: int, whole: int) -> Colour:
    """``part`` of ``whole`` of the way from the first colour to the last."""
    part = min(max(part, 0), whole)
    red, green, blue = (a + (b - a) * part // whole for a, b in zip(first, last, strict=True))
    return (red, green, blue)


def blend(width: int, height: int, first: Colour, last: Colour) -> Image.Image:
    """A picture of that size in pixels, with a vertical blend from the first colour to the last."""
    rows = bytes(channel for y in range(height) for channel in mix(first, last, y, height))
    column = Image.frombytes("RGB", (1, height), rows)
    return column.resize((width, height), Image.Resampling.NEAREST)


def vary(rng: Random, colour: Colour, swing: int = 12) -> Colour:
    """The colour, a little lighter or darker and a little off in each channel."""
    level = rng.randint(-swing, swing)
    red, green, blue = (min(255, max(0, channel + level + rng.randint(-swing // 3, swing // 3))) for channel in colour)
    return (red, green, blue)


def dark(colour: Colour, tenths: int) -> Colour:
    return mix(colour, (0, 0, 0), tenths, 10)


def light(colour: Colour, tenths: int) -> Colour:
    return mix(colour, (255, 255, 255), tenths, 10)
