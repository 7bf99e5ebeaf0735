"""Precision and recall on the test images with exact intervals, which also few labels have: was a threshold's promise
kept?
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, stdtrit

from capnet.contracts import Classes, sampling_units
from capnet.evaluation.bootstrap import LEVEL
from capnet.evaluation.metrics import Bools, Floats, bucket_masks
from capnet.evaluation.split_rows import SplitRows

PRIOR_UNITS = 4  # see ``estimated_size``
Size = Callable[[NDArray[Any], NDArray[Any]], float]


def proportion_interval(share: float, size: float) -> tuple[float, float]:
    """Clopper-Pearson interval of a share at LEVEL; the size need be no whole number (Korn and Graubard, 1998).

    It has a width also where all or none are right, which a bootstrap interval has not.

    Args:
        share: observed, 0 to 1.
        size: number of independent observations, above 0.

    Returns:
        Low and high end.
    """
    hits, tail = share * size, (1 - LEVEL) / 2
    low = betaincinv(hits, size - hits + 1, tail) if share > 0 else 0.0
    high = betaincinv(hits + 1, size - hits, 1 - tail) if share < 1 else 1.0
    return float(low), float(high)


def smallest_size(hits: NDArray[Any], totals: NDArray[Any]) -> float:
    """How many independent labels these are worth if all labels of a unit are right or wrong together (Kish, 1965): the
    number of labels where each unit has one, the number of units where all have equally many.

    Args:
        hits: right labels of each unit; they do not count here.
        totals: labels of each unit, not all 0.
    """
    return float(totals.sum() ** 2 / (totals**2).sum())


def estimated_size(hits: NDArray[Any], totals: NDArray[Any]) -> float:
    """How many independent labels these are worth by how much units differ (Korn and Graubard, 1998), corrected for the
    number of units; ``smallest_size`` where none differ.

    A few units with most labels hardly show how much units differ. So what would be seen if all labels of a unit were
    right or wrong together counts as PRIOR_UNITS more units, and the effective number of units takes the place of their
    number. In simulations with 5 to 100 units the intervals held the true share in 90 to 100 of 100 test sets, without
    this in as few as 65.

    Args:
        hits: right labels of each unit.
        totals: labels of each unit, not all 0.
    """
    hits, totals = hits[totals > 0], totals[totals > 0]
    n, units = totals.sum(), smallest_size(hits, totals)
    share = hits.sum() / n
    spread = ((hits - share * totals) ** 2).sum()
    if share in (0, 1) or len(totals) < 2 or not spread:
        return units
    together = share * (1 - share) * (totals**2).sum()
    spread = (units * spread + PRIOR_UNITS * together) / (units + PRIOR_UNITS)
    q = (1 + LEVEL) / 2
    fewer = (stdtrit(n - 1, q) / stdtrit(units - 1, q)) ** 2
    return float(min(n, fewer * share * (1 - share) * n**2 / spread))


def rate(name: str, right: Bools, of: Bools, units: NDArray[np.int64], size: Size) -> dict[str, float]:
    """A share of labels with its interval.

    Args:
        name: of the figure.
        right: bool [image, class], true where a label of ``of`` is right.
        of: bool [image, class], the labels that count.
        units: int [image] from 0 on.
        size: the effective number of labels, of right labels and labels of each unit.

    Returns:
        ``name``, ``name_low``, ``name_high``; nothing where no label counts, no ends where all is one unit.
    """
    hits, totals = (np.bincount(units, part.sum(axis=1)) for part in (right & of, of))
    if not totals.any():
        return {}
    share = float(hits.sum() / totals.sum())
    if len(totals) < 2:
        return {name: share}
    low, high = proportion_interval(share, size(hits, totals))
    return {name: share, f"{name}_low": low, f"{name}_high": high}


def decision_rates(
    test: SplitRows, decided: Bools, units: NDArray[np.int64], chosen: NDArray[np.int64] | Bools, size: Size
) -> dict[str, float]:
    """Recall and precision of the labels of some classes together.

    Args:
        test: labels and known entries [image, class].
        decided: bool [image, class], true where the label is predicted.
        units: int [image] from 0 on; see ``rate``.
        chosen: int [chosen class] or bool [class].
        size: see ``rate``; ``smallest_size`` holds for few labels, too, and is too wide for many of each unit.

    Returns:
        ``true`` and ``predicted``, numbers of labels; ``recall`` and ``precision`` with ``_low`` and ``_high``, where
        there are labels to measure them on.
    """
    known = test.known[:, chosen]
    labels, predicted = test.labels[:, chosen] & known, decided[:, chosen] & known
    counts = {"true": int(labels.sum()), "predicted": int(predicted.sum())}
    return counts | rate("recall", predicted, labels, units, size) | rate("precision", labels, predicted, units, size)


def decisions_document(test: SplitRows, thresholds: Floats, classes: Classes) -> dict[str, dict[str, float]]:
    """``decision_rates`` of all classes, of each bucket and, where some are critical, of these and of the others.

    Args:
        test: with scores of the variant capnet.
        thresholds: [class].
        classes: with their buckets.
    """
    decided = test.scores["capnet"] >= thresholds
    units = sampling_units(test.rows)
    masks = {"all" if name == "mAP" else name: mask for name, mask in bucket_masks(classes.buckets).items()}
    critical = np.array([item.critical for item in classes.items])
    masks |= {"critical": critical, "not_critical": ~critical} if critical.any() else {}
    return {name: decision_rates(test, decided, units, mask, estimated_size) for name, mask in masks.items()}
