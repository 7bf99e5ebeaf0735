"""Has the data changed its character? Imbalance, labels per picture and co-occurrence against a reference that lies in
git.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from capnet.config import Drift
from capnet.contracts import SCHEMA, SPLITS, Classes, check_schema
from capnet.data.checks.rules import Rule
from capnet.data.checks.tables import known_positives
from capnet.errors import ContractError
from capnet.inline import text_and_path

if TYPE_CHECKING:
    import pandas as pd

MOST_PAIRS = 1000  # pairs of classes kept per side, most frequent first; the others are one
CHANCE = 3.0  # standard errors that a figure may move by beyond its limit: small sides move by chance
NAMED = 3  # pairs named that moved most
BETWEEN = " + "  # between the names of a pair


def measure(frame: pd.DataFrame, classes: Classes) -> dict[str, Any]:
    """Counts from which all figures follow, per side: rows, labels, their squares per row, positives per class,
    pictures per pair of classes.

    Only whole numbers, so that equal data gives an equal file whatever the machine.
    """
    from scipy.sparse import csr_array

    row, label = known_positives(frame, len(classes))
    side = np.asarray(frame["split"], dtype=object)
    sides: dict[str, Any] = {}
    for name in SPLITS:
        on_side = np.flatnonzero(side == name)
        if not len(on_side):
            continue
        place = np.full(len(side), -1, dtype=np.int64)
        place[on_side] = np.arange(len(on_side))
        here = place[row] >= 0
        matrix = csr_array(
            (np.ones(here.sum(), dtype=np.int64), (place[row[here]], label[here])), shape=(len(on_side), len(classes))
        )
        per_row = np.bincount(place[row[here]], minlength=len(on_side))
        together = (matrix.T @ matrix).tocoo()
        above = together.row < together.col
        first, second, count = together.row[above], together.col[above], together.data[above]
        most = np.lexsort((second, first, -count))[:MOST_PAIRS]
        sides[name] = {
            "rows": len(on_side),
            "labels": int(per_row.sum()),
            "squares": int((per_row**2).sum()),
            "positives": dict(
                zip(classes.names, np.bincount(label[here], minlength=len(classes)).tolist(), strict=True)
            ),
            "pairs": {BETWEEN.join((classes.names[first[i]], classes.names[second[i]])): int(count[i]) for i in most},
            "all_pairs": int(count.sum()),
            "pair_squares": int(((per_row * (per_row - 1) // 2) ** 2).sum()),
        }
    return {"schema": SCHEMA, "classes": classes.names, "sides": sides}


def read_reference(setting: str | Path) -> dict[str, Any] | None:
    """The reference in a file, or in the setting itself; None where there is no such file.

    Raises ContractError where it is damaged or of another version.
    """
    text, path = text_and_path(setting, "validate.reference")
    if text is None:
        return None
    try:
        content = json.loads(text)
    except ValueError as error:
        raise ContractError(
            f"not valid JSON: {error}", str(path), "write it anew with `capnet validate --save-reference`"
        ) from None
    check_schema(content, path)
    try:
        for side in content["sides"].values():
            whole = [
                side["rows"],
                side["labels"],
                side["squares"],
                side["all_pairs"],
                side["pair_squares"],
                *side["positives"].values(),
                *side["pairs"].values(),
            ]
            if not side["rows"] or not all(isinstance(number, int) and number >= 0 for number in whole):
                raise ValueError("counts are whole numbers")
        list(content["classes"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ContractError(
            f"not a reference: {error!r}", str(path), "write it anew with `capnet validate --save-reference`"
        ) from None
    result: dict[str, Any] = content
    return result


def compare(reference: Mapping[str, Any], now: Mapping[str, Any], limits: Drift) -> pd.DataFrame:
    """One row a figure and side: ``value`` says what it was and is, ``excess`` by how much it moved beyond limit and
    chance (0 or less: fine).
    """
    import pandas as pd

    rows: list[tuple[str, str, str, float]] = [("classes", "all", *_classes(reference["classes"], now["classes"]))]
    for side in SPLITS:
        before, after = reference["sides"].get(side), now["sides"].get(side)
        if before is None or after is None:
            if before is not None or after is not None:
                rows.append(
                    ("rows", side, f"{before['rows'] if before else 0}, now {after['rows'] if after else 0}", 1.0)
                )
            continue
        if side == "train":
            rows.append(("imbalance ratio", side, *_imbalance(before, after, limits.imbalance)))
        rows.append(("label cardinality", side, *_cardinality(before, after, limits.cardinality)))
        rows.append(("co-occurrence", side, *_cooccurrence(before, after, limits.cooccurrence)))
    return pd.DataFrame(rows, columns=["figure", "split", "value", "excess"])


def drift_rules(severity: str) -> list[Rule]:
    """One rule: no figure moved beyond its limit."""
    return [
        Rule(
            "no_drift",
            "excess",
            "within",
            "classes, imbalance ratio, labels per picture and co-occurrence are near those of the reference",
            "the data is not what it was when the reference was written",
            "find out why; if the change is meant, write the reference anew (`capnet validate --save-reference`) and"
            " commit it",
            severity,
            shown="value",
            maximum=0,
        )
    ]


def _classes(before: list[str], after: list[str]) -> tuple[str, float]:
    gone, new = [name for name in before if name not in set(after)], [name for name in after if name not in set(before)]
    said = [f"{word}: {', '.join(names)}" for word, names in (("gone", gone), ("new", new)) if names]
    return "; ".join(said) or f"the same {len(after)}", float(len(gone) + len(new))


def _imbalance(before: Mapping[str, Any], after: Mapping[str, Any], limit: float) -> tuple[str, float]:
    """Count of the largest class over that of the smallest that has any; compared as a factor."""
    (old, old_error), (new, new_error) = (_ratio(list(side["positives"].values())) for side in (before, after))
    if not old or not new:
        return f"{old:.1f}, now {new:.1f}", float(old != new)
    moved, chance = abs(math.log(new / old)), CHANCE * math.hypot(old_error, new_error)
    said = (
        f"{old:.1f}, now {new:.1f}: a factor of {math.exp(moved):.2f}, {math.exp(math.log1p(limit) + chance):.2f}"
        " allowed"
    )
    return said, moved - math.log1p(limit) - chance


def _ratio(counts: list[int]) -> tuple[float, float]:
    """Largest over smallest count above 0, and the standard error of its logarithm (counts vary like Poisson's)."""
    there = [count for count in counts if count]
    return (max(there) / min(there), math.sqrt(1 / max(there) + 1 / min(there))) if there else (0.0, 0.0)


def _cardinality(before: Mapping[str, Any], after: Mapping[str, Any], limit: float) -> tuple[str, float]:
    """Mean number of labels of a picture; compared as a share of what it was."""
    (old, old_error), (new, new_error) = (_mean(side) for side in (before, after))
    moved, chance = abs(new - old), CHANCE * math.hypot(old_error, new_error)
    said = f"{old:.3f} labels a picture, now {new:.3f}: moved by {moved:.3f}, {limit * old + chance:.3f} allowed"
    return said, moved - limit * old - chance


def _mean(side: Mapping[str, Any]) -> tuple[float, float]:
    mean = side["labels"] / side["rows"]
    return mean, math.sqrt(max(0.0, side["squares"] / side["rows"] - mean**2) / side["rows"])


def _cooccurrence(before: Mapping[str, Any], after: Mapping[str, Any], limit: float) -> tuple[str, float]:
    """Share of all label pairs that changed places (total variation distance), less what chance alone moves.

    Two samples of n and m pairs of one distribution differ by half the sum of sqrt(2/pi p (1/n + 1/m)) on average.
    Pairs come in pictures, all those of a picture together, so n and m are numbers of equally telling single pairs
    (Kish's effective sample size). Pairs that one side does not keep are counted together.
    """
    if not before["all_pairs"] or not after["all_pairs"]:
        return f"{before['all_pairs']} pairs of labels, now {after['all_pairs']}", float(
            bool(before["all_pairs"]) != bool(after["all_pairs"])
        )
    n, m = (side["all_pairs"] ** 2 / side["pair_squares"] for side in (before, after))
    kept = sorted(
        set(before["pairs"]) & set(after["pairs"])
        if _cut(before) or _cut(after)
        else set(before["pairs"]) | set(after["pairs"])
    )
    old, new = (
        np.array([side["pairs"].get(name, 0) for name in kept], dtype=float) / side["all_pairs"]
        for side in (before, after)
    )
    moves = new - old
    distance = (np.abs(moves).sum() + abs(moves.sum())) / 2  # the others: what the kept pairs lost, they won
    pooled = np.append(old * n + new * m, (1 - old.sum()) * n + (1 - new.sum()) * m) / (n + m)
    chance = np.sqrt(2 / math.pi * pooled.clip(0) * (1 / n + 1 / m)).sum() / 2
    most = [i for i in np.argsort(-np.abs(moves), kind="stable")[:NAMED] if moves[i]]
    named = "; ".join(f"{kept[i]} {100 * old[i]:.1f} %, now {100 * new[i]:.1f} %" for i in most)
    said = f"{100 * distance:.1f} % of the pairs of labels moved, {100 * (limit + chance):.1f} % allowed" + (
        f"; most: {named}" if named else ""
    )
    return said, float(distance - limit - chance)


def _cut(side: Mapping[str, Any]) -> bool:
    """Are there pairs that were not kept?"""
    return sum(side["pairs"].values()) < side["all_pairs"]
