"""Average precision, F1 and their means over classes: pure functions on labels and scores [image, class].

Every measure takes weights [image, draw]: ones give the usual value, multiplicities give bootstrap draws, so that the
point and its interval come from the same code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capnet.contracts import BUCKETS

Bools = NDArray[np.bool_]
Floats = NDArray[np.floating[Any]]

DEFAULT_THRESHOLD = 0.5  # a label is given from this sigmoid score on, unless a threshold was chosen


@dataclass(frozen=True)
class Rankings:
    """Images of every class by falling score, cut into segments that each end with a group of equal scores holding a
    positive.

    Precision only matters at those ends, so summing weights per segment replaces a cumulative sum over all images.
    """

    above: Any  # sparse [segment, image]: 1 where the image lies in the segment
    positive: Any  # sparse [segment, image]: 1 where it is a positive of the class
    starts: NDArray[np.int64]  # [class + 1] first segment of each class


def falling(scores: Floats) -> tuple[NDArray[np.int64], Bools]:
    """Entries by falling score, equal ones in their order.

    Args:
        scores: [entry].

    Returns:
        Their order, int64 [entry]; and in that order which are the last of those with equal scores, bool [entry]: the
        cuts that decisions can have.
    """
    order = np.argsort(-scores, kind="stable")
    value = scores[order]
    return order, np.append(value[1:] != value[:-1], True)[: len(order)]


def rank(labels: Bools, scores: Floats, known: Bools) -> Rankings:
    """Sort every class once, for any number of weightings.

    Args:
        labels: [image, class].
        scores: [image, class]; only their order within a class counts.
        known: [image, class]; other entries are left out. A class without a known negative is not ranked.

    Returns:
        What ``weighted_average_precision`` needs.
    """
    from scipy.sparse import csr_array

    n_images, n_classes = labels.shape
    starts = np.zeros(n_classes + 1, dtype=np.int64)
    rows, columns, hits = [], [], []
    for c in range(n_classes):
        chosen = np.flatnonzero(known[:, c])
        if labels[chosen, c].all():  # every order of positives alone is perfect: it says nothing, see ``measurable``
            chosen = chosen[:0]
        order, last = falling(scores[chosen, c])
        order = chosen[order]
        hit = labels[order, c]
        group: NDArray[np.int64] = np.cumsum(last) - last
        holds = np.bincount(group, weights=hit, minlength=1) > 0
        segment: NDArray[np.int64] = (np.cumsum(holds) - holds)[group]
        used = segment < holds.sum()  # what ranks below the last positive has no effect
        starts[c + 1] = starts[c] + holds.sum()
        rows.append(segment[used] + starts[c])
        columns.append(order[used])
        hits.append(hit[used])
    row, column, hit = np.concatenate(rows), np.concatenate(columns), np.concatenate(hits)
    shape = (int(starts[-1]), n_images)
    ones = np.ones(len(row), dtype=np.float32)
    return Rankings(
        csr_array((ones, (row, column)), shape), csr_array((ones[hit], (row[hit], column[hit])), shape), starts
    )


def weighted_average_precision(rankings: Rankings, weights: Floats) -> Floats:
    """AP under image weights: sum over cuts of (R_k - R_(k-1)) P_k, equal scores grouped.

    Equal to scikit-learn's average_precision_score(sample_weight=...).

    Args:
        rankings: from ``rank``.
        weights: [image, draw].

    Returns:
        [class, draw] in the weights' type; NaN where a class has no positive weight, 1 where it has no negative one.
    """
    seen, hits = rankings.above @ weights, rankings.positive @ weights  # [segment, draw]
    n_classes = len(rankings.starts) - 1
    result = np.full((n_classes, weights.shape[1]), np.nan, dtype=weights.dtype)
    tiny = np.finfo(weights.dtype).tiny
    for c in range(n_classes):
        part = slice(rankings.starts[c], rankings.starts[c + 1])
        if part.start == part.stop:
            continue
        gain = hits[part]
        cumulative = np.cumsum(gain, axis=0)
        area = (gain * cumulative / np.maximum(np.cumsum(seen[part], axis=0), tiny)).sum(axis=0)
        np.divide(area, cumulative[-1], out=result[c], where=cumulative[-1] > 0)
    return result


def average_precision(labels: Bools, scores: Floats, known: Bools) -> Floats:
    """AP as scikit-learn's average_precision_score.

    Args:
        labels, scores, known: as in ``rank``.

    Returns:
        float64 [class]; NaN for a class without known positives or without known negatives.
    """
    return weighted_average_precision(rank(labels, scores, known), np.ones((len(labels), 1)))[:, 0]


@dataclass(frozen=True)
class Counts:
    """Weighted counts [class, draw] of predicted labels that are right, of predicted labels and of true labels."""

    hit: Floats
    predicted: Floats
    true: Floats


def count(labels: Bools, predicted: Bools, weights: Floats, known: Bools) -> Counts:
    """Count decisions under image weights.

    Args:
        labels: [image, class].
        predicted: [image, class], true where the label is given.
        weights: [image, draw].
        known: [image, class]; other entries are left out.

    Returns:
        Counts [class, draw] in the weights' type.
    """
    labels, predicted, kind = labels & known, predicted & known, weights.dtype
    return Counts(*(part.T.astype(kind) @ weights for part in (labels & predicted, predicted, labels)))


def _divide(above: Floats, below: Floats) -> Floats:
    return np.divide(above, below, out=np.full(np.shape(below), np.nan, dtype=below.dtype), where=below > 0)


def class_f1(counts: Counts) -> Floats:
    """F1 [class, draw]; NaN for a class without positives. CF1 is the mean of it, not the harmonic mean of CP and
    CR.
    """
    return np.where(counts.true > 0, _divide(2 * counts.hit, counts.predicted + counts.true), np.nan)


def overall_f1(counts: Counts) -> Floats:
    """OF1 [draw]: F1 of all known entries together (micro), those of classes without positives too."""
    return _divide(2 * counts.hit.sum(axis=0), (counts.predicted + counts.true).sum(axis=0))


def precision(counts: Counts) -> Floats:
    """Precision [class, draw]; NaN for a class that was never predicted: none of its labels is wrong."""
    return _divide(counts.hit, counts.predicted)


def recall(counts: Counts) -> Floats:
    """Recall [class, draw]; NaN for a class without positives."""
    return _divide(counts.hit, counts.true)


def mean_over(values: Floats, chosen: Bools | None = None) -> Floats:
    """Mean over classes, or whatever the first axis is.

    Args:
        values: [class, draw]; NaN entries are left out.
        chosen: bool [class]; None: all.

    Returns:
        [draw] in the values' type; NaN where nothing is left.
    """
    part = values if chosen is None else values[chosen]
    exists = ~np.isnan(part)
    return _divide(np.where(exists, part, 0).sum(axis=0), exists.sum(axis=0).astype(part.dtype))


def measurable(labels: Bools, known: Bools) -> Bools:
    """Which classes have both a known positive and a known negative, bool [class]: only these can be ranked."""
    return np.asarray((labels & known).any(axis=0) & (~labels & known).any(axis=0))


def bucket_masks(buckets: list[str]) -> dict[str, Bools]:
    """Class masks by the name of their mean: mAP is all classes, then head, medium and tail where they have classes.

    Args:
        buckets: of each class.

    Returns:
        bool [class] by name.
    """
    column = np.array(buckets)
    masks = {"mAP": np.ones(len(buckets), dtype=bool)}
    masks |= {name: column == name for name in BUCKETS if (column == name).any()}
    return masks


def means(ap: Floats, decisions: Mapping[str, Counts], masks: Mapping[str, Bools]) -> dict[str, Floats]:
    """Every mean over classes.

    Args:
        ap: [class, draw].
        decisions: counts by the suffix of their name: "" for those at 0.5, "_chosen" for those at chosen thresholds.
        masks: bool [class] by the name of the mean, as ``bucket_masks`` gives them.

    Returns:
        [draw] by name: those of ``masks``, and CF1 and OF1 with each suffix.
    """
    result = {name: mean_over(ap, mask) for name, mask in masks.items()}
    for suffix, counts in decisions.items():
        result[f"CF1{suffix}"] = mean_over(class_f1(counts))
        result[f"OF1{suffix}"] = overall_f1(counts)
    return result
