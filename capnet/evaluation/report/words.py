"""Numbers and comparisons in words that a person can read; a missing number is a hyphen, never NaN."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from capnet.errors import counted, some

MISSING = "-"
SELDOM = 0.02  # of a class's held-out positives
RARELY_RIGHT = 0.1  # of the labels that a class is given on held-out images
VARIANT_NAMES = {
    "capnet": "CapNet",
    "single_view": "CapNet, one view",
    "zero_shot": "Zero-shot",
    "zero_shot_single_view": "Zero-shot, one view",
    "linear_probe": "Linear probe",
}
MEMBER_NAMES = {
    "capnet": "CapNet's trained parts",
    "class_head": "the class head",
    "linear_probe": "a linear probe",
    "zero_shot": "zero-shot",
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
    write = _signed_end if signed else percent
    return f"{write(low)} to {write(high)}"


def _signed_end(value: float) -> str:
    """One end in points; with more decimals where it is not 0 and one decimal would say so."""
    text = points(value)
    return f"{100 * value:+.1g}" if value and text == points(0.0) else text


def with_interval(values: Mapping[str, Any], name: str) -> str:
    """``84.0 (81.2 to 86.5)``: a mean in percent and its interval, each where it was measured."""
    if name not in values:
        return ""
    span = interval(values, name)
    return percent(values[name]) + (f" ({span})" if span else "")


def chosen_on(source: Any, otherwise: str = "?") -> str:
    """The pictures that thresholds or a blend were chosen on, in words; ``otherwise`` where there were none."""
    return {
        "val": "the validation pictures",
        "out_of_fold": "out-of-fold scores of the pictures it was trained on",
    }.get(str(source), otherwise)


def borrowers(thresholds: Mapping[str, Any]) -> list[str]:
    """Names of the classes that borrow a pooled threshold; none where no thresholds were chosen."""
    chosen = thresholds.get("source") != "none"
    return [str(item["name"]) for item in thresholds.get("classes", ()) if chosen and item.get("borrowed")]


def blend_in_words(blend: Mapping[str, Any]) -> list[str]:
    """What is served and what the choice gained, in sentences; none where nothing was chosen."""
    weights = blend.get("weights")
    if not weights:
        return []
    shares = {MEMBER_NAMES.get(name, name): weight for name, weight in weights.items() if weight}
    where = chosen_on(blend.get("chosen_on"), "held-out pictures")
    listed = ", ".join(f"{100 * weight:.0f} % {name}" for name, weight in shares.items())
    if len(shares) > 1 and max(shares.values()) - min(shares.values()) < 0.005:
        listed = f"{', '.join(shares)}, in equal shares"
    sentence = f"What is served averages logits: {listed}. The shares were chosen on {where}"
    gains = []
    for name, item in blend.get("gains", {}).items():
        if weights.get(name) != 1:
            span = interval({f"gain_{end}": item.get(end) for end in ("low", "high")}, "gain", signed=True)
            gained = points(item.get("gain")) + (f" ({span})" if span else "")
            gains.append(f"{gained} over {MEMBER_NAMES.get(name, name)}")
    return [sentence + (f", where the difference is, in points of mAP: {'; '.join(gains)}." if gains else ".")]


def threshold_notes(content: Mapping[str, Any]) -> list[str]:
    """What thresholds do not reach: classes not shown to reach their objective, those hardly ever recognised or, with
    F1, rightly given, and critical ones whose held-out images reach less than those that share a threshold do together.

    Args:
        content: thresholds.json.
    """
    if content.get("source") == "none":
        return []
    notes, wrong, unseen = [], [], []
    shortfalls, never = dict[str, list[Mapping[str, Any]]](), dict[str, list[str]]()
    for item in content["classes"]:
        objective = _objective(content, item)
        kind, _, share = objective.partition(">=")
        if not item.get("reached", True) and share:
            shortfalls.setdefault(objective, []).append(item)
        elif kind != "recall" and as_float(item.get("recall")) < SELDOM:
            never.setdefault(objective, []).append(str(item["name"]))
        elif not share and as_float(item.get("precision")) < RARELY_RIGHT:
            if item["positives"]:
                wrong.append(f"{item['name']} ({percent(item['precision'])} % right)")
            else:
                unseen.append(str(item["name"]))
        elif "objective" in item and kind == "recall" and as_float(item.get("recall")) < float(share):
            who = "classes that share a threshold reach together" if item["borrowed"] else "its groups reach on average"
            notes.append(
                f"Critical class {item['name']}: recall {percent(item['recall'])} % of {item['positives']} held-out"
                f" positives, below {objective}, which {who}."
            )
    for objective, items in shortfalls.items():
        silent = [str(item["name"]) for item in items if as_float(item.get("recall")) < SELDOM]
        names = some([str(item["name"]) for item in items])
        whom, setting = _classes_with(content, objective)
        verb = "is" if len(items) == 1 else "are"
        note = f"{len(items)} of {whom} {verb} not shown to reach {objective} by held-out pictures: {names}."
        if silent:
            more = f"; {setting}: f1 gives more labels" if objective.startswith("precision") else ""
            note += f" Hardly ever recognised: {some(silent)}{more}."
        notes.append(note)
    for objective, silent in never.items():
        whom, setting = _classes_with(content, objective)
        are, need = ("is", "It needs") if len(silent) == 1 else ("are", "They need")
        other = "recall>=0.9" if objective == "f1" else "f1"
        notes.append(
            f"{len(silent)} of {whom} {are} hardly ever recognised on held-out pictures: {some(silent)}. {need} more"
            f" labelled pictures; {setting}: {other} gives more labels, and more wrong ones."
        )
    whom, setting = _classes_with(content, "f1") if wrong or unseen else ("", "")
    if wrong:
        note = f"Labels of {len(wrong)} of {whom} are nearly always wrong on held-out pictures: {some(wrong)}."
        notes.append(f"{note} {setting}: precision>=0.5 gives fewer labels.")
    if unseen:
        note = f"No held-out picture shows {len(unseen)} of {whom}: {some(unseen)}."
        notes.append(f"{note} Whether labels of these are right was not checked; more labelled pictures are needed.")
    return notes


def _objective(content: Mapping[str, Any], item: Mapping[str, Any]) -> str:
    return str(item.get("objective", content["objective"]))


def _classes_with(content: Mapping[str, Any], objective: str) -> tuple[str, str]:
    """The classes with this objective, counted in words, and the setting that it is from."""
    items = [item for item in content["classes"] if _objective(content, item) == objective]
    are_critical = all("objective" in item for item in items)
    kind = "critical " if are_critical else ""
    other = " that are not critical" if not are_critical and len(items) < len(content["classes"]) else ""
    setting = f"evaluate.threshold.{'critical_objective' if are_critical else 'objective'}"
    return counted(len(items), f"{kind}class{other}", f"{kind}classes{other}"), setting


def reading(value: float, low: float, high: float, without_one: float = math.nan) -> tuple[str, str]:
    """What a difference with its interval shows.

    Args:
        value: the difference, positive where it is better; NaN where it was not measured.
        low, high: ends of its interval; NaN for none.
        without_one: the difference without the one picture, or group of pictures, that carries most of it. A bootstrap
            cannot know what one picture may have hidden: it is in a draw, or the class is not.

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


def groups_in_words(content: Mapping[str, Any]) -> list[str]:
    """What counts as one where thresholds are to reach a recall or a precision for other groups, in sentences."""
    objectives = objectives_in_words(content)
    counted_once = {"recall>=": "positives of one group", "precision>=": "labels given in one group"}
    return [
        f"All {what}, such as a camera site, count as one." for kind, what in counted_once.items() if kind in objectives
    ]


def objectives_in_words(content: Mapping[str, Any]) -> str:
    """What the thresholds in the content of thresholds.json are for."""
    critical = content.get("critical_objective")
    return str(content.get("objective", "?")) + (f", for critical classes {critical}" if critical else "")
