"""The evaluation's files from scored images: evaluation.json, per_class.csv, predictions.parquet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from capnet.contracts import PREDICTION_COLUMNS, SCHEMA, Classes, sampling_units, unit_codes
from capnet.evaluation.bootstrap import SEED
from capnet.evaluation.calibration import brier, calibrate
from capnet.evaluation.curves import reliability
from capnet.evaluation.metrics import Bools, bucket_masks, class_f1, count, measurable, precision, recall
from capnet.evaluation.rates import decision_rates, smallest_size
from capnet.evaluation.split_rows import SplitRows
from capnet.evaluation.thresholds import Thresholds
from capnet.evaluation.variants import Comparison, Variant, compare_variants

RATE_ENDS = ("precision_low", "precision_high", "recall_low", "recall_high")
NO_SLICE = "no slice"  # rows without a slice, beside rows that have one


def slices(rows: pd.DataFrame) -> dict[str, Bools]:
    """Row masks, bool [row], by slice, sorted by name; empty unless there is more than one value."""
    column, without = rows["slice"].fillna("").astype(str).to_numpy(), NO_SLICE
    while without in column:  # a slice of the user's has that name
        without = f"({without})"
    column = np.where(column == "", without, column)
    names = sorted(set(column))
    return {name: column == name for name in names} if len(names) > 1 else {}


def compare_on_test_rows(
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
        As ``variants.compare_variants``; ``sampling_units`` are drawn together.
    """
    rows = np.ones(len(test.rows), dtype=bool) if chosen is None else chosen
    variants = {
        name: Variant(scores[rows], thresholds[name].threshold if name in thresholds else None)
        for name, scores in test.scores.items()
    }
    units = sampling_units(test.rows[rows])
    return compare_variants(test.labels[rows], test.known[rows], variants, classes.buckets, units, draws)


def evaluation_document(
    test: SplitRows, whole: Comparison, thresholds: Mapping[str, Thresholds], classes: Classes, draws: int
) -> dict[str, Any]:
    """The measured part of evaluation.json: variants, differences, slices, left-out classes, and what was drawn.

    Args:
        test: with scores of all variants.
        whole: from ``compare_on_test_rows`` over all test rows.
        thresholds, classes, draws: as in ``compare_on_test_rows``.

    Returns:
        JSON content; figures are fractions of 1. A slice in which no class is measurable has ``slice_info`` only.
    """
    units = len(np.unique(sampling_units(test.rows)))
    grouped = len(np.unique(unit_codes(test.rows["group"]))) < len(test.rows)
    content: dict[str, Any] = {
        "schema": SCHEMA,
        **whole.values,
        "differences": whole.differences,
        "left_out": _not_measured(test.labels, test.known, classes),
        "test_rows": len(test.rows),
        "bootstrap": {
            "draws": draws,
            "seed": SEED,
            "unit": "group" if grouped else "picture",
            "units": units,
        },
        "slices": {},
        "slice_info": {},
    }
    for name, chosen in slices(test.rows).items():
        content["slice_info"][name] = {
            "test_rows": int(chosen.sum()),
            "units": len(np.unique(sampling_units(test.rows[chosen]))),
            "left_out": _not_measured(test.labels[chosen], test.known[chosen], classes),
        }
        if measurable(test.labels[chosen], test.known[chosen]).any():
            part = compare_on_test_rows(test, thresholds, classes, draws, chosen)
            content["slices"][name] = part.values
            content["slice_info"][name]["differences"] = part.differences
    return content


def _not_measured(labels: Bools, known: Bools, classes: Classes) -> list[str]:
    return [classes.names[c] for c in np.flatnonzero(~measurable(labels, known))]


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
    for name, mask in bucket_masks(classes.buckets).items():
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
        whole: from ``compare_on_test_rows`` over all test rows.
        thresholds: of the variant capnet.
        classes: of the model.

    Returns:
        One row a class by falling train_count: class, train_count, bucket, positives (of the test rows), ap with its
        interval and that of the other variants, threshold, borrowed; precision, recall and f1 of the test rows at the
        threshold, the first two with intervals. NaN where nothing was measured.
    """
    nothing = np.full(len(classes), np.nan)
    decided = test.scores["capnet"] >= thresholds.threshold
    counts = count(test.labels, decided, np.ones((len(test.rows), 1)), test.known)
    units = sampling_units(test.rows)
    rates = [decision_rates(test, decided, units, np.array([c]), smallest_size) for c in range(len(classes))]
    ends = {name: [item.get(name, np.nan) for item in rates] for name in RATE_ENDS}
    frame = pd.DataFrame(
        {
            "class": classes.names,
            "train_count": classes.train_counts,
            "bucket": classes.buckets,
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
            **ends,
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
