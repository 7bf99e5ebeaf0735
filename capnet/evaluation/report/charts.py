"""Charts as small inline SVG: no script, colours from the page's style sheet, so they follow its light and dark scheme.

Cells of tables and the overview use percent for x and pixels for y: they fill any width and their text never shrinks.
The other charts have a view box as wide as a phone. Buckets differ by colour and by marker or dash, never by colour
alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from capnet.errors import counted
from capnet.evaluation.bootstrap import MIN_POSITIVES
from capnet.evaluation.report.words import shorten

WIDTH, HEIGHT = 360, 268
LEFT, RIGHT, TOP, BOTTOM = 48, 12, 10, 40
MANY = 300  # points of one series from which on they share one path and have no tooltips
LONG_NAME = 40  # characters of a class's name in a tooltip or a table
MARKER_BUCKETS = {"head": "circle", "medium": "square", "tail": "triangle"}
Part = dict[str, Any]  # what the template shows of one section


def number(value: float, decimals: int = 1) -> str:
    """A coordinate with at most so many decimals: ``12.5``, ``12``."""
    text = f"{value:.{decimals}f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def percent_x(value: float) -> str:
    """A share of 1 as an x coordinate in percent, two decimals at most."""
    return f"{number(100 * value, 2)}%"


def finite(*values: float) -> bool:
    return all(math.isfinite(value) for value in values)


def tag(name: str, *inside: str, **attributes: object) -> Markup:
    """An element of SVG.

    Args:
        name: of the element.
        inside: other elements, or text, which is escaped; "" for none.
        attributes: in this order; ``text_anchor`` is text-anchor, ``class_`` is class. A float has one decimal at most.
    """
    written = Markup("").join(
        Markup(' {}="{}"').format(
            key.rstrip("_").replace("_", "-"), number(value) if isinstance(value, float) else value
        )
        for key, value in attributes.items()
    )
    content = Markup("").join(inside)
    return Markup(f"<{name}{written}>{content}</{name}>" if content else f"<{name}{written}/>")


def marker(kind: str, x: float, y: float, radius: float) -> str:
    """The path data of a marker, for an SVG ``d``.

    Args:
        kind: circle, square or triangle.
        x, y: its centre, in units of the view box.
        radius: half its width, about, in the same units.
    """
    r, d, across, up = (number(part) for part in (radius, 2 * radius, x, y))
    if kind == "circle":
        return f"M{number(x - radius)} {up}a{r} {r} 0 1 0 {d} 0a{r} {r} 0 1 0-{d} 0z"
    if kind == "square":
        return f"M{number(x - radius)} {number(y - radius)}h{d}v{d}h-{d}z"
    assert kind == "triangle", kind
    half = number(1.2 * radius)
    return f"M{across} {number(y - 1.2 * radius)}l{half} {number(2.1 * radius)}h-{number(2.4 * radius)}z"


# ---------------------------------------------------------------- the overview


OVERVIEW_AP, OVERVIEW_GAP, OVERVIEW_COUNT = 170, 8, 46
SLOT = 10  # units of x per class


def overview(rows: Sequence[Mapping[Any, Any]]) -> Markup:
    """AP per class, sorted as given, with intervals above; training counts (log scale) hang below. Stretches to its
    width.

    Args:
        rows: of per_class.csv.
    """
    top, most = 12, max((row["train_count"] for row in rows), default=0)
    base = top + OVERVIEW_AP
    below = base + OVERVIEW_GAP
    height = below + OVERVIEW_COUNT + 4
    wide = SLOT * max(len(rows), 1)
    grid = "".join(f"M0 {number(base - share * OVERVIEW_AP)}h{wide}" for share in (0.25, 0.5, 0.75, 1.0))
    bars, counts, whiskers = [tag("path", class_="grid", d=grid)], "", ""
    for index, row in enumerate(rows):
        x, ap, low, high = SLOT * index, *(row[name] for name in ("ap", "ap_low", "ap_high"))
        depth = OVERVIEW_COUNT * math.log1p(max(row["train_count"], 0)) / (math.log1p(most) or 1.0)
        counts += f"M{x + 1} {below}h8v{number(depth)}h-8z"
        if not finite(ap):
            continue
        sure = finite(low, high)
        pictures = counted(row["positives"], "test picture")
        doubt = f", only {pictures}" if row["positives"] < MIN_POSITIVES else f", {pictures} but no interval"
        span = f" ({100 * low:.1f} to {100 * high:.1f})" if sure else doubt
        trained = counted(row["train_count"], "training picture")
        title = f"{shorten(row['class'], LONG_NAME)}: AP {100 * ap:.1f}{span}; {trained}"
        css_class = f"bar {row['bucket']}" + ("" if sure else " unsure")
        outline = f"M{x + 1} {base}V{number(base - OVERVIEW_AP * ap)}h8V{base}z"
        bars.append(tag("path", tag("title", title), class_=css_class, d=outline))
        if sure:
            whiskers += f"M{x + 5} {number(base - OVERVIEW_AP * high)}V{number(base - OVERVIEW_AP * low)}"
    lines = {"count": counts, "whisker": whiskers, "axis": f"M0 {base}h{wide}"}
    bars += [tag("path", class_=css_class, d=path) for css_class, path in lines.items()]
    scale = [(f"{100 * share:.0f}", base - share * OVERVIEW_AP + 4) for share in (0, 0.25, 0.5, 0.75, 1)]
    scale.append((str(most), below + OVERVIEW_COUNT))
    ticks = [tag("text", text, class_="tick", x=30, y=y, text_anchor="end") for text, y in scale]
    label = (
        f"Average precision of {counted(len(rows), 'class', 'classes')}, from the most to the fewest training pictures;"
        " the table below has every number"
    )
    frame = {"viewBox": f"0 0 {wide} {height}", "preserveAspectRatio": "none", "role": "img", "aria_label": label}
    return tag(
        "div",
        tag("svg", *ticks, width=36, height=height, aria_hidden="true"),
        tag("svg", *bars, class_="bars", height=height, **frame),
        class_="overview" if len(rows) <= MANY else "overview dense",
        style=f"max-width:{36 + 44 * len(rows)}px",
    )


# ---------------------------------------------------------------- charts with axes


@dataclass(frozen=True)
class Axis:
    """A linear axis: its range, its ticks and its title."""

    low: float
    high: float
    ticks: tuple[float, ...]
    title: str
    percent: bool = False

    def text(self, value: float) -> str:
        return f"{100 * value:.0f}" if self.percent else f"{value:g}"

    def share(self, value: float) -> float:
        return (min(max(value, self.low), self.high) - self.low) / ((self.high - self.low) or 1.0)


@dataclass(frozen=True)
class Series:
    """A line (``kind`` = line) or points (``kind`` = a marker's name); ``css_class`` styles it."""

    x: Sequence[float]
    y: Sequence[float]
    css_class: str
    kind: str = "line"
    titles: Sequence[str] = ()
    radius: float = 3.6


def share_axis(title: str) -> Axis:
    """0 to 1, written in percent."""
    return Axis(0.0, 1.0, (0.0, 0.25, 0.5, 0.75, 1.0), title, percent=True)


def nice_axis(values: Iterable[float], title: str, *, from_zero: bool = False, whole: bool = False) -> Axis:
    """An axis around ``values`` with four to six round ticks.

    Args:
        values: that the axis holds; those that are not finite are left out.
        title: written beside it.
        from_zero: start at 0 and not at the smallest value.
        whole: ticks at whole numbers only.
    """
    finite_values = [value for value in values if finite(value)] or [0.0, 1.0]
    low, high = (0.0 if from_zero else min(finite_values)), max(finite_values)
    if high <= low:
        high = low + (1.0 if whole else abs(low) or 1.0)
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    if whole:
        step = max(1.0, float(round(step)))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple(round(index * step, 10) for index in range(first, last + 1))
    return Axis(ticks[0], ticks[-1], ticks, title)


def chart(
    x: Axis,
    y: Axis,
    series: Sequence[Series],
    label: str,
    *,
    diagonal: bool = False,
    vertical: float = math.nan,
    note: str = "",
) -> Markup:
    """Lines and points in a frame.

    Args:
        x, y: its axes; what lies beyond their ends is drawn at the ends.
        series: drawn in this order; points with a coordinate that is not finite are left out.
        label: for screen readers.
        diagonal: draw y = x.
        vertical: x of a vertical line; NaN for none.
        note: written beside that line, at its end away from the series.
    """
    wide, tall = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def pixel(horizontal: float, upright: float) -> tuple[float, float]:
        return LEFT + wide * x.share(horizontal), TOP + tall * (1 - y.share(upright))

    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    parts = []
    for tick in y.ticks:
        _, up = pixel(x.low, tick)
        parts.append(tag("line", class_="grid", x1=LEFT, x2=right, y1=up, y2=up))
        parts.append(tag("text", y.text(tick), class_="tick", x=LEFT - 6, y=up + 4, text_anchor="end"))
    for tick in x.ticks:
        across, _ = pixel(tick, y.low)
        parts.append(tag("text", x.text(tick), class_="tick", x=across, y=bottom + 16, text_anchor="middle"))
    turned = f"translate(10 {TOP + tall // 2}) rotate(-90)"
    parts += [
        tag("line", class_="axis", x1=LEFT, x2=right, y1=bottom, y2=bottom),
        tag("text", x.title, class_="label", x=LEFT + wide / 2, y=HEIGHT - 6, text_anchor="middle"),
        tag("text", y.title, class_="label", transform=turned, text_anchor="middle"),
    ]
    if diagonal:
        (x1, y1), (x2, y2) = pixel(x.low, y.low), pixel(x.high, y.high)
        parts.append(tag("line", class_="diagonal", x1=x1, y1=y1, x2=x2, y2=y2))
    if finite(vertical):
        across, _ = pixel(vertical, y.low)
        anchor, shift = ("end", -5) if x.share(vertical) > 0.6 else ("start", 5)
        parts.append(tag("line", class_="kept", x1=across, x2=across, y1=TOP, y2=bottom))
        crossed = [
            y.share(b) for one in series for a, b in zip(one.x, one.y, strict=True) if a == vertical and finite(b)
        ]
        up = bottom - 6 if sum(crossed) > len(crossed) / 2 else TOP + 10
        parts.append(tag("text", note, class_="tick", x=across + shift, y=up, text_anchor=anchor))
    for one in series:
        points = [(*pixel(a, b), index) for index, (a, b) in enumerate(zip(one.x, one.y, strict=True)) if finite(a, b)]
        if one.kind == "line" and points:
            path = "M" + "L".join(f"{number(a)} {number(b)}" for a, b, _ in points)
            parts.append(tag("path", class_=f"line {one.css_class}", d=path))
        elif points:
            shapes = [marker(one.kind, a, b, one.radius) for a, b, _ in points]
            if len(points) > MANY:
                parts.append(tag("g", tag("path", d="".join(shapes)), class_=f"points {one.css_class} many"))
                continue
            titles = [one.titles[index] if one.titles else "" for *_, index in points]
            marks = [tag("path", tag("title", title), d=d) for d, title in zip(shapes, titles, strict=True)]
            parts.append(tag("g", *marks, class_=f"points {one.css_class}"))
    return tag("svg", *parts, class_="chart", viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=label)
