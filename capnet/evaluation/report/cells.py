"""Cells of the report's tables as inline SVG: bars, differences and pairs, as wide as their column."""

from __future__ import annotations

import math

from markupsafe import Markup

from capnet.evaluation.report.charts import finite, percent_x, tag

NOTHING = Markup("")


def bar_cell(value: float, low: float, high: float, other: float = math.nan) -> Markup:
    """A horizontal bar on 0 to 1 with its interval, in the colour of the bucket of the row (or card) around it.

    Args:
        value: length of the bar; an empty cell where it is not finite.
        low, high: ends of the interval; a bar without one is pale.
        other: position of a tick (zero-shot); NaN for none.
    """
    if not finite(value):
        return NOTHING
    sure = finite(low, high)
    bar = tag("rect", class_="bar" if sure else "bar unsure", y=3, width=percent_x(value), height=10)
    tick = tag("line", class_="other", x1=percent_x(other), x2=percent_x(other), y2=16) if finite(other) else NOTHING
    return _cell(bar, _line("whisker", percent_x(low), percent_x(high)) if sure else NOTHING, tick)


def difference_cell(value: float, low: float, high: float, extent: float, kind: str) -> Markup:
    """A point with its interval on a scale around a marked zero.

    Args:
        value: the difference; an empty cell where it is not finite.
        low, high: ends of the interval, NaN for none.
        extent: the scale goes from -extent to extent; what lies beyond is drawn at its end.
        kind: what ``words.reading`` says of it: better and worse have a colour, all else that of no difference.
    """
    if not finite(value):
        return NOTHING

    def x_of(v: float) -> str:
        return percent_x(0.5 + 0.47 * max(-1.0, min(1.0, v / extent)))

    shown = kind if kind in ("better", "worse") else "same"
    span = _line("range", x_of(low), x_of(high)) if finite(low, high) else NOTHING
    return _cell(_zero("50%"), span, tag("circle", cx=x_of(value), cy=8, r=4), css_class=f" difference {shown}")


def pair_cell(first: float, second: float, low: float = 0.0, high: float = 1.0) -> Markup:
    """A dumbbell with a hollow dot for the first value and a filled dot for the second, in the colour of the row.

    Args:
        first, second: an empty cell where one is not finite.
        low, high: ends of the scale.
    """
    if not finite(first, second):
        return NOTHING
    a, b, zero = (percent_x(0.03 + 0.94 * (max(low, min(high, v)) - low) / (high - low)) for v in (first, second, 0.0))
    hollow, filled = tag("circle", class_="hollow", cx=a, cy=8, r=4), tag("circle", cx=b, cy=8, r=4.5)
    return _cell(_zero(zero), _line("range", a, b), hollow, filled, css_class=" pair")


def _cell(*inside: Markup, css_class: str = "") -> Markup:
    return tag("svg", *inside, class_=f"cell{css_class}", aria_hidden="true")


def _line(css_class: str, x1: str, x2: str) -> Markup:
    return tag("line", class_=css_class, x1=x1, x2=x2, y1=8, y2=8)


def _zero(x: str) -> Markup:
    return tag("line", class_="zero", x1=x, x2=x, y1=0, y2=16)
