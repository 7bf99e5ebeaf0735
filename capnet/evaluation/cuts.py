"""One decision threshold: the best expected F1, or a recall or a precision that is promised for images to come."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from capnet.evaluation.metrics import Bools, Floats, falling

TINY = 1e-9  # sums of shares of a group


@dataclass(frozen=True)
class Cut:
    """A threshold and whether it reaches the objective on the rows it was chosen on."""

    threshold: float
    reached: bool


def expected_f1_cut(scores: Floats, probabilities: Floats) -> float:
    """The cut with the best expected F1, half-way to the next lower score.

    The cut that has the best F1 on a few positives owes it to luck, and where a class is ranked badly it marks nearly
    every image. Of k images with the highest probabilities, the expected F1 is about 2 sum_k p / (k + sum p), which
    needs no label (Ye et al., ICML 2012; Lipton et al., arXiv 1402.1892).

    Args:
        scores: [entry], at least one.
        probabilities: [entry], calibrated; they rise with the scores.

    Returns:
        The threshold.
    """
    order, last = falling(scores)
    hits, marked = np.cumsum(probabilities[order])[last], np.flatnonzero(last) + 1
    return _below(scores[order][last], int(np.argmax(2 * hits / (marked + hits[-1]))))


def choose_cut(labels: Bools, scores: Floats, objective: str, groups: NDArray[np.int64] | None = None) -> Cut:
    """Choose among the distinct scores as cuts.

    Args:
        labels: bool [entry], at least one of them true.
        scores: [entry].
        objective: ``recall>=R``: the highest cut that promises R for images still to come; where there are too few
            positives for a promise, the lowest positive, not ``reached``. ``precision>=P``: the lowest cut whose
            precision reaches P with one wrong label more than there is; where none does, the cut with the highest
            such precision (of equal ones the lowest), not ``reached``.
        groups: int [entry]; recall or precision is then meant for images of groups still to come, and all positives,
            or all labels that are given, in a group together count as one.

    Returns:
        The cut; a label is given from its threshold on.
    """
    order, last = falling(scores)
    cuts = scores[order][last]
    name, _, number = objective.partition(">=")
    share = float(number)
    if name == "recall":
        reached = np.cumsum(_weights(labels, groups)[order])[last]
        positives = float(reached[-1])
        required = min(hits_to_promise(share, positives), positives)
        return Cut(float(cuts[np.argmax(reached >= required - TINY)]), can_promise(share, positives))
    shares = _doubted_precision(labels[order], None if groups is None else groups[order])[last]
    fine = np.flatnonzero(shares >= share - TINY)
    chosen = fine[-1] if len(fine) else np.flatnonzero(shares >= shares.max() - TINY)[-1]
    return Cut(float(cuts[chosen]), bool(len(fine)))


def _doubted_precision(labels: Bools, groups: NDArray[np.int64] | None) -> Floats:
    """Precision of the first k entries for each k, [entry], with one wrong label more than there is.

    The lowest of many cuts that reach a precision owes it partly to luck, and entirely where labels are few. With one
    wrong label more, as where false discoveries are counted by decoys (knockoff+: Barber and Candes, arXiv
    1404.5609), 9 right labels are the fewest that show a precision of 0.9.

    Args:
        labels: bool [entry], of the highest score first.
        groups: int [entry]; a group has the mean of its labels, and there is one group more, all wrong.
    """
    number = np.arange(1, len(labels) + 1)
    if groups is None:
        return np.asarray(np.cumsum(labels) / (number + 1.0))
    frame = pd.DataFrame({"group": groups, "hit": labels}).groupby("group")["hit"]
    counts, hits = frame.cumcount().to_numpy() + 1.0, frame.cumsum().to_numpy()
    before = np.divide(hits - labels, counts - 1, out=np.zeros(len(labels)), where=counts > 1)
    return np.asarray(np.cumsum(hits / counts - before) / (np.cumsum(counts == 1) + 1.0))


def hits_to_promise(recall: float, positives: float) -> float:
    """How many of these positives a cut must reach so that another positive is reached with this probability.

    The cut that just reaches the share ``recall`` of k positives reaches fewer of the next ones, by up to a whole
    positive. Where old and new positives are exchangeable, recall (k + 1) hits are enough: split conformal prediction
    (Vovk et al., 2005; Angelopoulos and Bates, arXiv 2107.07511, section 1), here on the scores of positives. Of k
    groups, each of which counts as one, the same holds for a positive of another group (Lee, Barber and Willett, arXiv
    2306.06342). More than k says that no cut can promise it.
    """
    return recall * (positives + 1.0)


def can_promise(share: float, positives: float) -> bool:
    """Whether so many positives can promise a recall or show a precision of ``share``."""
    return positives > 0 and hits_to_promise(share, positives) <= positives + TINY


def _weights(labels: Bools, groups: NDArray[np.int64] | None) -> Floats:
    """Of entries [entry]: 0 for negatives; positives of one group have 1 together."""
    weights = labels.astype(np.float64)
    if groups is not None:
        _, group, size = np.unique(groups[labels], return_inverse=True, return_counts=True)
        weights[labels] = 1.0 / size[group]
    return weights


def _below(cuts: Floats, index: int) -> float:
    """Half-way from a cut to the next lower score, as float32; the cut itself where float32 has nothing in between."""
    if index + 1 == len(cuts):
        return float(cuts[index])
    middle = np.float32((float(cuts[index]) + float(cuts[index + 1])) / 2)
    return float(middle) if np.float32(cuts[index + 1]) < middle <= cuts[index] else float(cuts[index])
