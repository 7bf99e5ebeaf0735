"""Points of curves for plots: precision over recall, and observed frequency over probability (reliability)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from capnet.evaluation.metrics import Bools, Floats

POINTS = 100  # most points of one curve
BINS = 10
GRID = np.linspace(0.0, 1.0, 51)  # recalls at which curves are averaged


def pr_curve(labels: Bools, scores: Floats) -> tuple[Floats, Floats]:
    """Recall and precision [cut] at every distinct score [entry] that adds a positive, by rising recall; needs a
    positive.
    """
    order = np.argsort(-scores, kind="stable")
    value = scores[order]
    last = np.append(value[1:] != value[:-1], True)
    hit, given = np.cumsum(labels[order])[last], np.flatnonzero(last) + 1
    adds = np.diff(hit, prepend=0) > 0
    return hit[adds] / hit[-1], (hit / given)[adds]


def thin(recall: Floats, precision: Floats, points: int = POINTS) -> tuple[Floats, Floats]:
    """At most ``points`` of the curve's own points, evenly spaced, both ends kept."""
    if len(recall) <= points:
        return recall, precision
    kept = np.unique(np.linspace(0, len(recall) - 1, points).round().astype(int))
    return recall[kept], precision[kept]


def interpolated(recall: Floats, precision: Floats) -> Floats:
    """Best precision [grid] at that recall or above, on GRID: curves of several classes can be averaged there."""
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return best[np.minimum(np.searchsorted(recall, GRID - 1e-12), len(recall) - 1)]


def pr_table(
    variant: str,
    labels: Bools,
    known: Bools,
    scores: Floats,
    names: list[str],
    masks: Mapping[str, Bools],
    per_class: bool,
) -> list[dict[str, Any]]:
    """Rows (variant, kind, name, recall, precision): kind bucket is the mean of interpolated class curves, kind class
    its own points.
    """
    curves = {}
    for c in np.flatnonzero((labels & known).any(axis=0)).tolist():
        curves[c] = pr_curve(labels[known[:, c], c], scores[known[:, c], c])
    rows = []
    for name, mask in masks.items():
        members = [interpolated(*curves[c]) for c in curves if mask[c]]
        if members:
            rows += _rows(variant, "bucket", "all" if name == "mAP" else name, GRID, np.mean(members, axis=0))
    if per_class:
        for c, curve in curves.items():
            rows += _rows(variant, "class", names[c], *thin(*curve))
    return rows


def _rows(variant: str, kind: str, name: str, recall: Floats, precision: Floats) -> list[dict[str, Any]]:
    return [
        {"variant": variant, "kind": kind, "name": name, "recall": round(float(r), 6), "precision": round(float(p), 6)}
        for r, p in zip(recall, precision, strict=True)
    ]


def reliability(labels: Bools, probabilities: Floats) -> list[dict[str, float]]:
    """Mean probability, observed frequency and number of entries in each of BINS equal steps of probability; empty
    steps are left out.
    """
    step = np.minimum((probabilities * BINS).astype(int), BINS - 1)
    entries = np.bincount(step, minlength=BINS)
    predicted = np.bincount(step, weights=probabilities, minlength=BINS)
    observed = np.bincount(step, weights=labels, minlength=BINS)
    return [
        {
            "mean": float(predicted[b] / entries[b]),
            "observed": float(observed[b] / entries[b]),
            "count": int(entries[b]),
        }
        for b in np.flatnonzero(entries)
    ]
