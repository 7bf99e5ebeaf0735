"""Numbers and comparisons in words that a person can read; a missing number is a hyphen, never NaN."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

MISSING = "-"
MOST_DECIMALS = 6
ROUNDING = 1e-9  # two numbers are equal within it
VARIANT_NAMES = {
    "capnet": "CapNet",
    "single_view": "CapNet, one view",
    "zero_shot": "Zero-shot",
    "zero_shot_single_view": "Zero-shot, one view",
    "linear_probe": "Linear probe",
}
MEANS = {"mAP": "All classes", "head": "Head", "medium": "Medium", "tail": "Tail"}
GLYPHS = {"head": "\N{BLACK CIRCLE}", "medium": "\N{BLACK SQUARE}", "tail": "\N{BLACK UP-POINTING TRIANGLE}"}


def as_float(value: Any) -> float:
    """A finite float, or NaN for anything else."""
    usable = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if usable else math.nan


def fixed(value: Any, digits: int = 1, sign: bool = False) -> str:
    """A number as text, without a negative zero.

    Args:
        value: MISSING where it is no finite number.
        digits: decimals.
        sign: write a plus in front of positive numbers.
    """
    number = as_float(value)
    if math.isnan(number):
        return MISSING
    number = round(number, digits) + 0.0
    return f"{number:+.{digits}f}" if sign and number else f"{number:.{digits}f}"


def percent(value: Any) -> str:
    """A fraction of 1 in percent, without the percent sign."""
    return fixed(100 * as_float(value))


def exact_percent(value: float) -> str:
    """A fraction of 1 in percent, with more than one decimal where it has more: a limit is not rounded."""
    rounded, exact = percent(value), f"{100 * value:.10g}"
    return rounded if float(rounded) == float(exact) else exact


def percent_near(value: Any, limit: float, sign: bool = False) -> str:
    """A fraction of 1 in percent, beside a limit that is one, too; see ``near``."""
    return near(100 * as_float(value), 100 * limit, sign=sign)


def near(value: Any, limit: float, digits: int = 1, sign: bool = False) -> str:
    """A number as text, with as many decimals as say whether it is below, at or above a limit.

    Args:
        value: MISSING where it is no finite number.
        limit: that the reader compares it with.
        digits: the fewest decimals.
        sign: write a plus in front of positive numbers.
    """
    number = as_float(value)
    if math.isnan(number):
        return MISSING
    texts = [fixed(number, decimals, sign) for decimals in range(digits, MOST_DECIMALS + 1)]
    return next((text for text in texts if _order(float(text), limit) == _order(number, limit)), texts[0])


def _order(number: float, limit: float) -> int:
    """-1, 0 or 1: below, at or above."""
    return (number - limit > ROUNDING) - (number - limit < -ROUNDING)


def points(value: Any) -> str:
    """A difference of fractions in percentage points, signed."""
    return fixed(100 * as_float(value), sign=True)


def whole(value: Any) -> str:
    """A count."""
    return fixed(value, 0)


def significant(value: Any) -> str:
    """Three significant digits."""
    number = as_float(value)
    return MISSING if math.isnan(number) else f"{number:.3g}"


def score(value: Any, digits: int = 3) -> str:
    """A score or a threshold with so many decimals; three significant digits where these would show a zero."""
    text = fixed(value, digits)
    return significant(value) if value and text == fixed(0.0, digits) else text


def interval(values: Mapping[str, Any], name: str, *, signed: bool = False) -> str:
    """``62.1 to 66.9`` in percent, or an empty text where no interval was measured.

    Args:
        values: with NAME_low and NAME_high as fractions of 1.
        name: NAME.
        signed: write both ends with their signs, for a difference.
    """
    low, high = as_float(values.get(f"{name}_low")), as_float(values.get(f"{name}_high"))
    if math.isnan(low) or math.isnan(high):
        return ""
    if signed:
        return f"{percent_near(low, 0.0, sign=True)} to {percent_near(high, 0.0, sign=True)}"
    return f"{percent(low)} to {percent(high)}"


def with_interval(values: Mapping[str, Any], name: str) -> str:
    """``84.0 (81.2 to 86.5)``: a mean in percent and its interval, each where it was measured."""
    if name not in values:
        return ""
    span = interval(values, name)
    return percent(values[name]) + (f" ({span})" if span else "")


def reading(value: float, low: float, high: float, without_one: float = math.nan) -> tuple[str, str]:
    """What a difference with its interval shows.

    Args:
        value: the difference, positive where it is better; NaN where it was not measured.
        low, high: ends of its interval; NaN for none.
        without_one: the difference without the one image, or group of images, that carries most of it. A bootstrap
            cannot know what one image may have hidden: it is in a draw, or the class is not.

    Returns:
        Kind (better, worse, same or none), and the sentence.
    """
    if math.isnan(value):
        return "none", "not measured"
    if math.isnan(low) or math.isnan(high):
        return "none", "no interval was measured"
    carried = 0.0 if math.isnan(without_one) else value - without_one
    if (low > 0 and low <= carried) or (high < 0 and high >= carried):
        return (
            "same",
            f"no difference is shown: it hangs on one picture or group, without which it is {points(without_one)}",
        )
    if low > 0 or high < 0:
        kind = "better" if value > 0 else "worse"
        return kind, f"{kind}, the interval excludes 0"
    return "same", "no difference is shown, the interval includes 0"


def difference(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """One difference of evaluation.json, ready to show."""
    keys = (name, f"{name}_low", f"{name}_high", f"{name}_without_one")
    value, low, high, without_one = (as_float(values.get(key)) for key in keys)
    kind, sentence = reading(value, low, high, without_one)
    return {
        "value": value,
        "low": low,
        "high": high,
        "text": points(value),
        "interval": interval(values, name, signed=True),
        "kind": kind,
        "sentence": sentence,
    }


def leaves(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings as (``a.b``, value), sorted within each section."""
    for key in sorted(content):
        if isinstance(content[key], Mapping):
            yield from leaves(content[key], f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", content[key]


def flatten(content: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Nested settings as (``a.b``, value) in words; long lists are counted, not listed."""
    return [(name, _plain(value)) for name, value in leaves(content)]


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value)) if len(value) <= 8 else f"{len(value)} values"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return MISSING
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value) if not isinstance(value, Mapping) else "; ".join(f"{key} {item}" for key, item in flatten(value))


def shorten(name: str, limit: int) -> str:
    """The name, or its start where it is longer than ``limit``."""
    return name if len(name) <= limit else name[: limit - 3] + "..."
