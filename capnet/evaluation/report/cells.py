"""Cells of the report's tables as inline SVG: bars, differences and pairs, as wide as their column."""

from __future__ import annotations

import math

from markupsafe import Markup

from capnet.evaluation.report.charts import finite, percent_x


def bar_cell(value: float, low: float, high: float, other: float = math.nan) -> Markup:
    """A horizontal bar on 0 to 1 with its interval, in the colour of the bucket of the row (or card) around it.

    Args:
        value: length of the bar; an empty cell where it is not finite.
        low, high: ends of the interval; a bar without one is pale.
        other: position of a tick (zero-shot); NaN for none.
    """
    if not finite(value):
        return Markup("")
    sure = finite(low, high)
    parts = [
        f'<svg class="cell" aria-hidden="true"><rect class="bar{"" if sure else " unsure"}" y="3"'
        f' width="{percent_x(value)}" height="10"/>'
    ]
    if sure:
        parts.append(f'<line class="whisker" x1="{percent_x(low)}" x2="{percent_x(high)}" y1="8" y2="8"/>')
    if finite(other):
        parts.append(f'<line class="other" x1="{percent_x(other)}" x2="{percent_x(other)}" y2="16"/>')
    return Markup("".join(parts) + "</svg>")


def difference_cell(value: float, low: float, high: float, extent: float) -> Markup:
    """A point with its interval on a scale around a marked zero.

    Args:
        value: the difference; an empty cell where it is not finite.
        low, high: ends of the interval, NaN for none; one that holds 0, or none, takes the colour of no difference.
        extent: the scale goes from -extent to extent; what lies beyond is drawn at its end.
    """
    if not finite(value):
        return Markup("")

    def x_of(v: float) -> str:
        return percent_x(0.5 + 0.47 * max(-1.0, min(1.0, v / extent)))

    shown = "better" if value > 0 else "worse"
    if not finite(low, high) or low <= 0 <= high:
        shown = "same"
    whisker = f'<line class="range" x1="{x_of(low)}" x2="{x_of(high)}" y1="8" y2="8"/>' if finite(low, high) else ""
    return Markup(
        f'<svg class="cell difference {shown}" aria-hidden="true"><line class="zero" x1="50%" x2="50%" y1="0" y2="16"/>'
        f'{whisker}<circle cx="{x_of(value)}" cy="8" r="4"/></svg>'
    )


def pair_cell(first: float, second: float, low: float = 0.0, high: float = 1.0) -> Markup:
    """A dumbbell with a hollow dot for the first value and a filled dot for the second, in the colour of the row.

    Args:
        first, second: an empty cell where one is not finite.
        low, high: ends of the scale.
    """
    if not finite(first, second):
        return Markup("")
    a, b, zero = (percent_x(0.03 + 0.94 * (max(low, min(high, v)) - low) / (high - low)) for v in (first, second, 0.0))
    return Markup(
        f'<svg class="cell pair" aria-hidden="true"><line class="zero" x1="{zero}" x2="{zero}" y1="0" y2="16"/><line'
        f' class="range" x1="{a}" x2="{b}" y1="8" y2="8"/><circle class="hollow" cx="{a}" cy="8" r="4"/><circle'
        f' cx="{b}" cy="8" r="4.5"/></svg>'
    )
