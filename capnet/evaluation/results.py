"""The evaluation's files from scored images: evaluation.json, per_class.csv, predictions.parquet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from capnet.contracts import PREDICTION_COLUMNS, SCHEMA, Classes, label_matrix, read_predictions, unit_codes
from capnet.errors import ContractError, DataError, Problem
from capnet.evaluation.bootstrap import SEED, Comparison, Variant, compare
from capnet.evaluation.calibration import brier, calibrate
from capnet.evaluation.curves import reliability
from capnet.evaluation.metrics import Bools, Floats, bucket_masks, class_f1, count, precision, recall
from capnet.evaluation.thresholds import Thresholds

NO_SLICE = "no slice"  # rows without a slice, beside rows that have one


@dataclass(frozen=True)
class SplitRows:
    """The rows of one split; labels and known bool [image, class], scores float32 [image, class] by
    variant.
    """

    name: str
    rows: pd.DataFrame
    labels: Bools
    known: Bools
    scores: dict[str, Floats]


def make_split(table: pd.DataFrame, name: str, classes: Classes, scores: Mapping[str, Floats]) -> SplitRows:
    """One split with its labels.

    Args:
        table: rows of split.parquet.
        name: train, val or test.
        classes: the columns of labels and scores.
        scores: float32 [image, class] by variant, in the order of the rows of this split.

    Returns:
        The rows of the split; an unknown label is no label.

    Raises:
        ContractError: Scores have another shape.
        DataError: A score is no number between 0 and 1.
    """
    rows = table[table["split"] == name].reset_index(drop=True)
    unknown = label_matrix(rows["unknown"], len(classes))
    split = SplitRows(name, rows, label_matrix(rows["labels"], len(classes)) & ~unknown, ~unknown, dict(scores))
    check_scores(split)
    return split


def check_scores(split: SplitRows) -> None:
    """Every variant must have one score in [0, 1] for each row and class.

    Raises:
        ContractError: scores have another shape.
        DataError: a score is no number between 0 and 1; names every image that has one.
    """
    problems = []
    for variant, scores in split.scores.items():
        if scores.shape != split.labels.shape:
            raise ContractError(
                f"{variant} has scores of shape {scores.shape}, {split.labels.shape} expected",
                f"{split.name} rows",
                "run `capnet train` again",
            )
        broken = ~((scores >= 0) & (scores <= 1))  # true for NaN
        for row in np.flatnonzero(broken.any(axis=1)):
            what = f"the score {scores[row][broken[row]][0]} of variant {variant} is not between 0 and 1"
            todo = (
                "check that the training loss stayed finite (history.csv) and that the image is readable, then"
                " train again"
            )
            problems.append(
                Problem(what, f"{split.name} image {split.rows['image_id'][row]} ({split.rows['path'][row]})", todo)
            )
    if problems:
        raise DataError(problems=problems)


def aligned(scored: pd.DataFrame, rows: pd.DataFrame, what: str, of: str, path: Path, todo: str) -> list[Any]:
    """The scores [class] of ``rows`` in their order; raises ContractError, with ``what`` they are ``of``, where
    ``scored`` has others.
    """
    by_id = dict(zip(scored["image_id"], scored["scores"], strict=True))
    missing = [name for name in rows["image_id"] if name not in by_id]
    if missing or len(scored) != len(rows):
        words = f"{len(scored)} {what} for {len(rows)} {of} rows; without: {', '.join(missing[:5]) or 'none'}"
        raise ContractError(words, str(path), todo)
    return [by_id[name] for name in rows["image_id"]]


def served_test_scores(path: Path, rows: pd.DataFrame) -> list[Any]:
    """``aligned`` scores of the test ``rows`` by the variant capnet, from predictions.parquet at ``path``."""
    found = read_predictions(path)
    found = found[(found["variant"] == "capnet") & (found["split"] == "test")]
    return aligned(found, rows, "predictions", "test", path, "run `capnet evaluate` again after `capnet split`")


def require_positives(test: SplitRows) -> None:
    """Without a single positive there is nothing to measure.

    Raises:
        DataError: there are no test rows, none has a known label, or all that are known are negatives.
    """
    if test.rows.empty:
        raise DataError(
            "there are no test rows", "split.parquet", "give test rows (column split), or set split.test_share above 0"
        )
    if not test.known.any():
        what = f"none of the {len(test.rows)} test pictures has a known label, so no measure exists"
        raise DataError(
            what, "split.parquet", "give the test pictures their labels, or draw another test set (split.seed)"
        )
    if not test.labels.any():
        what = f"no class has a positive among the {len(test.rows)} test pictures, so no measure exists"
        todo = (
            "give pictures that show a class the split 'test' too (column split), or draw another test set (split.seed)"
            " if this one was drawn"
        )
        raise DataError(what, "split.parquet", todo)


def slices(rows: pd.DataFrame) -> dict[str, Bools]:
    """Row masks, bool [row], by slice, sorted by name; empty unless there is more than one value."""
    column = rows["slice"].fillna("").astype(str).replace("", NO_SLICE).to_numpy()
    names = sorted(set(column))
    return {name: column == name for name in names} if len(names) > 1 else {}


def measure(
    test: SplitRows, thresholds: Mapping[str, Thresholds], classes: Classes, draws: int, chosen: Bools | None = None
) -> Comparison:
    """Compare all variants on the test rows, or on some of them.

    Args:
        test: with scores of all variants.
        thresholds: by variant; decisions of one without are measured at 0.5 only.
        classes: with their buckets.
        draws: of the bootstrap.
        chosen: bool [test row]; None takes all.

    Returns:
        As ``bootstrap.compare``; rows of one group are drawn together.
    """
    rows = np.ones(len(test.rows), dtype=bool) if chosen is None else chosen
    variants = {
        name: Variant(scores[rows], thresholds[name].threshold if name in thresholds else None)
        for name, scores in test.scores.items()
    }
    units = unit_codes(test.rows["group"][rows].tolist())
    return compare(test.labels[rows], test.known[rows], variants, [item.bucket for item in classes.items], units, draws)


def evaluation_document(
    test: SplitRows, whole: Comparison, thresholds: Mapping[str, Thresholds], classes: Classes, draws: int
) -> dict[str, Any]:
    """The measured part of evaluation.json: variants, differences, slices, left-out classes, and what was drawn.

    Args:
        test: with scores of all variants.
        whole: from ``measure`` over all test rows.
        thresholds, classes, draws: as in ``measure``.

    Returns:
        JSON content; figures are fractions of 1. A slice without a positive has ``slice_info`` only.
    """
    units = len(set(unit_codes(test.rows["group"].tolist())))
    content: dict[str, Any] = {
        "schema": SCHEMA,
        **whole.values,
        "differences": whole.differences,
        "left_out": _without_positives(test.labels, classes),
        "test_rows": len(test.rows),
        "bootstrap": {
            "draws": draws,
            "seed": SEED,
            "unit": "picture" if units == len(test.rows) else "group",
            "units": units,
        },
        "slices": {},
        "slice_info": {},
    }
    for name, chosen in slices(test.rows).items():
        content["slice_info"][name] = {
            "test_rows": int(chosen.sum()),
            "left_out": _without_positives(test.labels[chosen], classes),
        }
        if test.labels[chosen].any():
            part = measure(test, thresholds, classes, draws, chosen)
            content["slices"][name] = part.values
            content["slice_info"][name]["differences"] = part.differences
    return content


def _without_positives(labels: Bools, classes: Classes) -> list[str]:
    return [classes.names[c] for c in np.flatnonzero(~labels.any(axis=0))]


def calibration_document(test: SplitRows, thresholds: Thresholds, classes: Classes) -> dict[str, Any]:
    """Brier score and reliability of the test entries per bucket, raw and calibrated (the fit has not seen them).

    Args:
        test: with scores of the variant capnet.
        thresholds: with the calibration.
        classes: with their buckets.

    Returns:
        ``buckets``: for ``all`` and each bucket with known entries their number ``entries``, ``brier_raw``,
        ``brier_calibrated``, and the points ``raw`` and ``calibrated`` of ``curves.reliability``.
    """
    raw = test.scores["capnet"].astype(np.float64)
    probabilities = calibrate(thresholds.calibration, raw)
    content: dict[str, Any] = {"buckets": {}}
    for name, mask in bucket_masks([item.bucket for item in classes.items]).items():
        known = test.known & mask
        if known.any():
            content["buckets"]["all" if name == "mAP" else name] = {
                "entries": int(known.sum()),
                "brier_raw": brier(test.labels, known, raw),
                "brier_calibrated": brier(test.labels, known, probabilities),
                "raw": reliability(test.labels[known], raw[known]),
                "calibrated": reliability(test.labels[known], probabilities[known]),
            }
    return content


def per_class(test: SplitRows, whole: Comparison, thresholds: Thresholds, classes: Classes) -> pd.DataFrame:
    """The table per_class.csv.

    Args:
        test: with scores of the variant capnet.
        whole: from ``measure`` over all test rows.
        thresholds: of the variant capnet.
        classes: of the model.

    Returns:
        One row a class by falling train_count: class, train_count, bucket, positives (of the test rows), ap with its
        interval and that of the other variants, threshold, borrowed; precision, recall and f1 of the test rows at the
        threshold. NaN where nothing was measured.
    """
    nothing = np.full(len(classes), np.nan)
    counts = count(test.labels, test.scores["capnet"] >= thresholds.threshold, np.ones((len(test.rows), 1)), test.known)
    frame = pd.DataFrame(
        {
            "class": classes.names,
            "train_count": classes.train_counts,
            "bucket": [item.bucket for item in classes.items],
            "positives": test.labels.sum(axis=0),
            "ap": whole.ap["capnet"],
            "ap_low": whole.ap_low,
            "ap_high": whole.ap_high,
            **{f"ap_{name}": whole.ap.get(name, nothing) for name in ("single_view", "zero_shot", "linear_probe")},
            "threshold": thresholds.threshold.astype(np.float64),
            "borrowed": thresholds.borrowed,
            "precision": precision(counts)[:, 0],
            "recall": recall(counts)[:, 0],
            "f1": class_f1(counts)[:, 0],
        }
    )
    return frame.sort_values("train_count", ascending=False, kind="stable").reset_index(drop=True)


def predictions(splits: list[SplitRows]) -> pd.DataFrame:
    """Rows of predictions.parquet: every variant of every image of these splits.

    Returns:
        Columns image_id, split, slice, variant, scores (float32 [class]).
    """
    parts = [
        split.rows[["image_id", "split", "slice"]].assign(variant=variant, scores=list(scores.astype(np.float32)))
        for split in splits
        for variant, scores in split.scores.items()
    ]
    return pd.concat(parts, ignore_index=True)[list(PREDICTION_COLUMNS)]
