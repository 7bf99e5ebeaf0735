"""Decision thresholds per class: best expected F1, or a recall or a precision to reach, for which rare classes borrow.

A label is given where score >= threshold. Thresholds are float32 numbers in the unit of the scores, and hold only for
scores made with the same test-time views.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from capnet.evaluation.calibration import Calibration, calibrate, cross_calibrate, fit_calibration, uncalibrate
from capnet.evaluation.cuts import Cut, can_promise, choose_cut, expected_f1_cut
from capnet.evaluation.metrics import DEFAULT_THRESHOLD, Bools, Floats, count, precision, recall

LEAST = 0.05  # probability of a label that is given for F1


@dataclass(frozen=True)
class Thresholds:
    """Chosen thresholds; all arrays [class]. ``precision`` and ``recall`` are those of the rows they were chosen on
    (NaN: no such).
    """

    threshold: NDArray[np.float32]
    borrowed: Bools
    reached: Bools
    positives: NDArray[np.int64]
    precision: Floats
    recall: Floats
    calibration: Calibration


def choose_thresholds(
    labels: Bools,
    known: Bools,
    scores: Floats,
    objective: str | Sequence[str],
    min_positives: int,
    prior: float,
    groups: NDArray[np.int64] | None = None,
) -> Thresholds:
    """Choose a threshold per class on the known entries.

    For F1 it is the cut with the best expected F1 by the calibrated probabilities, in which rare classes lean on the
    others, and no label less probable than LEAST is given. For a recall or a precision, a class with too few positives,
    or without a cut of its own that reaches the objective, borrows: one cut is chosen on calibrated probabilities over
    the entries of the classes that borrow, and mapped back to the class's own score. A promise over all classes would
    be kept by the frequent ones (class-conditional conformal prediction by clusters: Ding et al., NeurIPS 2023). The
    probabilities come from calibrations that have not seen the row. Where the classes that borrow have too few
    positives together, the cut is chosen over all classes.

    Args:
        labels, known: bool [image, class].
        scores: float32 [image, class] in [0, 1].
        objective: ``f1`` or as in ``choose_cut``, one for all classes or one a class; a class borrows from those of its
            own.
        min_positives: known positives below which a class borrows; also one whose own rows do not reach the objective.
        prior: as in ``fit_calibration``.
        groups: int [image], as in ``choose_cut``; None: images stand for themselves, as where all groups differ. With
            too few groups for a promise about other groups, each positive counts for itself and no class is
            ``reached``. Nor is a class without positives, except for f1, which promises nothing.

    Returns:
        Thresholds with the calibration; ``no_thresholds`` where there is no known positive at all.
    """
    n_classes = labels.shape[1]
    positives = (labels & known).sum(axis=0)
    if not positives.any():
        return no_thresholds(n_classes)
    if groups is not None and len(np.unique(groups)) == len(groups):
        groups = None
    calibration = fit_calibration(labels, known, scores, prior)
    objectives = np.array([objective] * n_classes if isinstance(objective, str) else list(objective))
    threshold = np.full(n_classes, DEFAULT_THRESHOLD, dtype=np.float32)
    borrowed, reached = np.ones(n_classes, dtype=bool), np.zeros(n_classes, dtype=bool)
    for kind in dict.fromkeys(objectives.tolist()):
        mine = objectives == kind
        if kind == "f1":
            probabilities = calibrate(calibration, scores)
            for c in np.flatnonzero(mine).tolist():
                rows = known[:, c] if known[:, c].any() else np.ones(len(known), dtype=bool)
                threshold[c] = expected_f1_cut(scores[rows, c], probabilities[rows, c])
            threshold[mine] = np.maximum(threshold, uncalibrate(calibration, LEAST))[mine]
            borrowed[mine], reached[mine] = False, True
            continue
        share = float(kind.partition(">=")[2])
        promised = groups is None or can_promise(share, _units(labels & known & mine, groups))
        units = groups if promised else None
        for c in np.flatnonzero(mine & (positives >= min_positives)).tolist():
            rows = known[:, c]
            cut = choose_cut(labels[rows, c], scores[rows, c], kind, units if units is None else units[rows])
            if cut.reached:
                threshold[c], borrowed[c], reached[c] = cut.threshold, False, promised
        lent = mine & borrowed
        pooled = _pooled_cut(labels, known, scores, calibration, prior, kind, mine, lent, units)
        threshold[lent] = uncalibrate(calibration, pooled.threshold).astype(np.float32)[lent]
        # no promise rests on a class without positives, nor on those of classes that keep their own threshold
        together = can_promise(share, _units(labels & known & lent, units))
        reached[lent] = pooled.reached & promised & together & (positives[lent] > 0)
    counts = count(labels, scores >= threshold, np.ones((len(labels), 1)), known)
    return Thresholds(
        threshold,
        borrowed,
        reached,
        positives,
        precision(counts)[:, 0],
        recall(counts)[:, 0],
        calibration,
    )


def _pooled_cut(
    labels: Bools,
    known: Bools,
    scores: Floats,
    calibration: Calibration,
    prior: float,
    objective: str,
    classes: Bools,
    borrowed: Bools,
    groups: NDArray[np.int64] | None,
) -> Cut:
    """A calibrated probability that reaches the objective over several classes together.

    Args:
        labels, known, scores, prior, groups: as in ``choose_thresholds``.
        calibration: fitted on them.
        objective: of these classes.
        classes: bool [class], those of this objective.
        borrowed: bool [class], those of them that borrow.
    """
    share = float(objective.partition(">=")[2])
    pool, probabilities = known & classes, calibrate(calibration, scores)
    if can_promise(share, _units(labels & known & borrowed, groups)):
        pool, probabilities = known & borrowed, cross_calibrate(calibration, labels, known, scores, prior, groups)
    if not (labels & pool).any():  # these classes have no positive at all
        pool = known
    of_row = None if groups is None else np.broadcast_to(groups[:, None], labels.shape)[pool]
    return choose_cut(labels[pool], probabilities[pool], objective, of_row)


def _units(labels: Bools, groups: NDArray[np.int64] | None) -> int:
    """How many positives of labels [image, class] a promise counts; with groups, those that have one."""
    if groups is None:
        return int(labels.sum())
    return len(np.unique(groups[labels.any(axis=1)]))


def no_thresholds(n_classes: int) -> Thresholds:
    """0.5 for every class, marked as borrowed: there were no rows to choose on."""
    nothing = np.full(n_classes, np.nan)
    cuts, marks = np.full(n_classes, DEFAULT_THRESHOLD, dtype=np.float32), np.ones(n_classes, dtype=bool)
    return Thresholds(
        cuts,
        marks,
        ~marks,
        np.zeros(n_classes, dtype=np.int64),
        nothing,
        nothing,
        Calibration(np.ones(n_classes), np.zeros(n_classes)),
    )
