"""Has the data changed its character? Imbalance, labels per image and co-occurrence against a reference that lies in
git.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from capnet.config import Drift
from capnet.contracts import SCHEMA, SPLITS, Classes, check_schema
from capnet.data.checks.rules import Rule
from capnet.data.checks.tables import listed_positives
from capnet.errors import ContractError
from capnet.inline import MOST_TABLE, text_and_path

MOST_PAIRS = 1000  # pairs of classes kept per split, most frequent first; the others are one
CHANCE = 3.0  # standard errors that a figure may move by beyond its limit: small splits move by chance
NAMED = 3  # pairs named that moved most
BETWEEN = " + "  # between the names of a pair


def drift_counts(frame: pd.DataFrame, classes: Classes) -> dict[str, Any]:
    """Counts from which all figures follow. Only whole numbers, so that equal data gives an equal file whatever the
    machine.

    Args:
        frame: split.parquet.
        classes: of the data.

    Returns:
        JSON content: the classes, and per split that has rows: rows, labels, their squares per row, positives per
        class, images per pair of classes (the MOST_PAIRS most frequent) and sums over all pairs.
    """
    splits: dict[str, Any] = {}
    for name in SPLITS:
        rows = frame[frame["split"] == name]
        if not len(rows):
            continue
        matrix = listed_positives(rows, len(classes)).astype(np.int32)
        per_row = matrix.sum(axis=1)
        together = (matrix.T @ matrix).tocoo()
        above = together.row < together.col
        first, second, count = together.row[above], together.col[above], together.data[above]
        most = np.lexsort((second, first, -count))[:MOST_PAIRS]
        splits[name] = {
            "rows": len(rows),
            "labels": int(per_row.sum()),
            "squares": int((per_row**2).sum()),
            "positives": dict(zip(classes.names, matrix.sum(axis=0).tolist(), strict=True)),
            "pairs": {BETWEEN.join((classes.names[first[i]], classes.names[second[i]])): int(count[i]) for i in most},
            "all_pairs": int(count.sum()),
            "pair_squares": int(((per_row * (per_row - 1) // 2) ** 2).sum()),
        }
    return {"schema": SCHEMA, "classes": classes.names, "sides": splits}


def read_reference(setting: str | Path) -> dict[str, Any] | None:
    """The reference in a file, or in the setting itself.

    Args:
        setting: ``validate.reference``: a path, or the JSON text.

    Returns:
        What ``drift_counts`` gave then; None where there is no such file.

    Raises:
        ContractError: it is damaged or of another version.
    """
    text, path = text_and_path(setting, "validate.reference", MOST_TABLE)
    if text is None:
        return None
    todo = "write it anew with `capnet validate --save-reference`"
    try:
        content: dict[str, Any] = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ContractError(f"not valid JSON: {error}", str(path), todo) from None
    check_schema(content, path)
    try:
        for split in content["sides"].values():
            sums = (split[name] for name in ("rows", "labels", "squares", "all_pairs", "pair_squares"))
            whole = [*sums, *split["positives"].values(), *split["pairs"].values()]
            if not split["rows"] or not all(isinstance(number, int) and number >= 0 for number in whole):
                raise ValueError("counts are whole numbers")
        list(content["classes"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ContractError(f"not a reference: {error!r}", str(path), todo) from None
    return content


def drift_table(reference: Mapping[str, Any], now: Mapping[str, Any], limits: Drift) -> pd.DataFrame:
    """Compare the figures of a split with those of a reference.

    Args:
        reference, now: from ``drift_counts``.
        limits: the section ``validate.drift``.

    Returns:
        One row a figure and split: ``figure``, ``split``, ``value`` (what it was and is, in words), ``excess`` (by how
        much it moved beyond limit and chance; 0 or less is fine).
    """
    rows: list[tuple[str, str, str, float]] = [("classes", "all", *_classes(reference["classes"], now["classes"]))]
    for split in SPLITS:
        before, after = reference["sides"].get(split), now["sides"].get(split)
        if before is None and after is None:
            continue
        if before is None or after is None:
            old, new = (counts["rows"] if counts else 0 for counts in (before, after))
            rows.append(("rows", split, f"{old}, now {new}", 1.0))
            continue
        if split == "train":
            rows.append(("imbalance ratio", split, *_imbalance(before, after, limits.imbalance)))
        rows.append(("label cardinality", split, *_cardinality(before, after, limits.cardinality)))
        rows.append(("co-occurrence", split, *_cooccurrence(before, after, limits.cooccurrence)))
    return pd.DataFrame(rows, columns=["figure", "split", "value", "excess"])


def drift_rules(severity: str) -> list[Rule]:
    """One rule: no figure moved beyond its limit."""
    return [
        Rule(
            "no_drift",
            "excess",
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
    known, left = set(before), set(after)
    gone, new = [name for name in before if name not in left], [name for name in after if name not in known]
    text = [f"{word}: {', '.join(names)}" for word, names in (("gone", gone), ("new", new)) if names]
    return "; ".join(text) or f"the same {len(after)}", float(len(gone) + len(new))


def _imbalance(before: Mapping[str, Any], after: Mapping[str, Any], limit: float) -> tuple[str, float]:
    """The largest count of a class over the smallest one above 0; compared as a factor."""
    (old, old_error), (new, new_error) = (_ratio(list(split["positives"].values())) for split in (before, after))
    if not old or not new:
        return f"{old:.1f}, now {new:.1f}", float(old != new)
    moved, chance = abs(math.log(new / old)), CHANCE * math.hypot(old_error, new_error)
    allowed = math.exp(math.log1p(limit) + chance)
    text = f"{old:.1f}, now {new:.1f}: a factor of {math.exp(moved):.2f}, {allowed:.2f} allowed"
    return text, moved - math.log1p(limit) - chance


def _ratio(counts: list[int]) -> tuple[float, float]:
    """Largest over smallest count above 0, and the standard error of its logarithm (counts vary like Poisson's)."""
    positive = [count for count in counts if count]
    return (max(positive) / min(positive), math.sqrt(1 / max(positive) + 1 / min(positive))) if positive else (0.0, 0.0)


def _cardinality(before: Mapping[str, Any], after: Mapping[str, Any], limit: float) -> tuple[str, float]:
    """Mean number of labels of an image; compared as a share of what it was."""
    (old, old_error), (new, new_error) = (_mean(split) for split in (before, after))
    moved, chance = abs(new - old), CHANCE * math.hypot(old_error, new_error)
    text = f"{old:.3f} labels a picture, now {new:.3f}: moved by {moved:.3f}, {limit * old + chance:.3f} allowed"
    return text, moved - limit * old - chance


def _mean(split: Mapping[str, Any]) -> tuple[float, float]:
    mean = split["labels"] / split["rows"]
    return mean, math.sqrt(max(0.0, split["squares"] / split["rows"] - mean**2) / split["rows"])


def _cooccurrence(before: Mapping[str, Any], after: Mapping[str, Any], limit: float) -> tuple[str, float]:
    """Share of all label pairs that changed places (total variation distance), less what chance alone moves.

    Two samples of n and m pairs of one distribution differ by half the sum of sqrt(2/pi p (1/n + 1/m)) on average.
    Pairs come in images, all those of an image together, so n and m are numbers of equally telling single pairs
    (Kish's effective sample size). Pairs that one split does not keep are counted together.
    """
    pairs = (before["all_pairs"], after["all_pairs"])
    if not all(pairs):
        return f"{pairs[0]} pairs of labels, now {pairs[1]}", float(any(pairs))
    n, m = (split["all_pairs"] ** 2 / split["pair_squares"] for split in (before, after))
    one, other = _by_names(before["pairs"]), _by_names(after["pairs"])
    kept = sorted(one.keys() & other.keys() if _cut(before) or _cut(after) else one.keys() | other.keys())
    counts = ([images[name] for name in kept] for images in (one, other))
    old, new = (np.array(count, dtype=float) / total for count, total in zip(counts, pairs, strict=True))
    moves = new - old
    distance = (np.abs(moves).sum() + abs(moves.sum())) / 2  # the others: what the kept pairs lost, they won
    pooled = np.append(old * n + new * m, (1 - old.sum()) * n + (1 - new.sum()) * m) / (n + m)
    chance = np.sqrt(2 / math.pi * pooled.clip(0) * (1 / n + 1 / m)).sum() / 2
    most = [i for i in np.argsort(-np.abs(moves), kind="stable")[:NAMED] if moves[i]]
    named = "; ".join(f"{kept[i]} {100 * old[i]:.1f} %, now {100 * new[i]:.1f} %" for i in most)
    text = f"{100 * distance:.1f} % of the pairs of labels moved, {100 * (limit + chance):.1f} % allowed"
    return text + (f"; most: {named}" if named else ""), float(distance - limit - chance)


def _by_names(pairs: Mapping[str, int]) -> Counter[str]:
    """Images per pair whatever the order of the classes, which may be another one now."""
    images = Counter[str]()
    for pair, count in pairs.items():
        images[BETWEEN.join(sorted(pair.split(BETWEEN)))] += count
    return images


def _cut(split: Mapping[str, Any]) -> bool:
    """Are there pairs that were not kept?"""
    return sum(split["pairs"].values()) < split["all_pairs"]
