"""Points of curves for plots: precision over recall, and observed frequency over probability (reliability)."""

from __future__ import annotations

import numpy as np

from capnet.evaluation.metrics import Bools, Floats, falling

BINS = 10


def pr_curve(labels: Bools, scores: Floats) -> tuple[Floats, Floats]:
    """Precision over recall, at every distinct score that adds a positive.

    Args:
        labels: bool [entry], at least one of them true.
        scores: [entry].

    Returns:
        Recall [cut], rising, and precision [cut].
    """
    order, last = falling(scores)
    hits, decided = np.cumsum(labels[order])[last], np.flatnonzero(last) + 1
    adds = np.diff(hits, prepend=0) > 0
    return hits[adds] / hits[-1], (hits / decided)[adds]


def reliability(labels: Bools, probabilities: Floats) -> list[dict[str, float]]:
    """Mean probability and observed frequency in each of BINS equal steps of probability.

    Args:
        labels: bool [entry].
        probabilities: [entry] in [0, 1].

    Returns:
        ``mean``, ``observed`` and ``count`` (entries) of each step, in rising order; empty steps are left out.
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
