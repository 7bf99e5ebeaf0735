"""Calibration: p = sigmoid(logit(score) / T_c + shift_c), monotone per class, fitted on validation rows.

With a distribution-balanced loss a raw sigmoid is no probability: the loss shifts logits and weighs classes (Wu et
al., ECCV 2020). The shift of a class has a normal prior around a shared shift: a class with k expected positives moves
about k / (k + prior) of the way to the shift that its own rows ask for, so that rare classes lean on the others. The
logarithm of its temperature T_c has one around a shared temperature, because a blend of members is surer of frequent
classes than of rare ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, logit

from capnet.evaluation.metrics import Bools, Floats

EDGE = 1e-7  # scores are kept this far from 0 and 1: float32 holds no more
TEMPERATURES = (0.02, 50.0)  # the shared one stays inside, also where every class is separated perfectly
OWN_TEMPERATURE = 5.0  # precision of the prior: classes differ by 45 % of the shared temperature
FOLDS = 5
BLOCK = 65_536  # entries at a time in the search: several arrays of them stay in a processor's cache


@dataclass(frozen=True)
class Calibration:
    """Temperature and shift, float64 [class]; the identity is Calibration(ones, zeros)."""

    temperature: Floats
    shift: Floats

    @staticmethod
    def by_class(fitted: dict[str, Any]) -> dict[str, Any]:
        """What thresholds.json says of a calibration, with a temperature for each class: older files have one for all,
        and versions that were registered with them still serve.
        """
        if not isinstance(shared := fitted["temperature"], float):
            return fitted
        return fitted | {"temperature": [shared] * len(fitted["shift"])}


def logits(scores: Floats) -> Floats:
    """Logit of sigmoid scores of any shape, float64 and finite."""
    return logit(np.clip(scores.astype(np.float64), EDGE, 1 - EDGE))


def calibrate(calibration: Calibration, scores: Floats) -> Floats:
    """Probabilities of scores [image, class]; never falls where the score rises."""
    return expit(logits(scores) / calibration.temperature + calibration.shift)


def uncalibrate(calibration: Calibration, probability: float) -> Floats:
    """The score [class] that each class needs to have this probability: the inverse of ``calibrate``, 0 where all
    scores up to EDGE, which are as one to it, have this probability or more.
    """
    needed = expit((logit(np.float64(probability)) - calibration.shift) * calibration.temperature)
    return np.where(needed > EDGE * (1 + 1e-6), needed, 0.0)


def cross_entropy(margin: Floats) -> tuple[Floats, Floats]:
    """The loss -log sigmoid(margin) and its slope sigmoid(-margin), both from one exponential: logaddexp and expit take
    twice as long, and the search for a calibration asks hundreds of times.

    Args:
        margin: logits, positive where they are right, of any shape.

    Returns:
        Both, of the same shape.
    """
    small = np.exp(-np.abs(margin))
    return np.log1p(small) - np.minimum(margin, 0.0), np.where(margin > 0, small, 1.0) / (1.0 + small)


def fit_calibration(
    labels: Bools, known: Bools, scores: Floats, prior: float, start: Calibration | None = None
) -> Calibration:
    """Minimise the binary cross entropy of the known entries plus prior / 2 * sum_c (shift_c - shift)^2 plus
    OWN_TEMPERATURE / 2 * sum_c (log T_c - log T)^2; shifts are compared at the mean logit.

    Args:
        labels, known: bool [image, class].
        scores: [image, class] in [0, 1].
        prior: precision of the prior of shifts, in expected positives.
        start: of nearly the same rows; from there a rough fit is enough.

    Returns:
        The calibration; the identity where the known entries have no positive or no negative.
    """
    n_classes = labels.shape[1]
    if not (labels & known).any() or not (~labels & known).any():
        return Calibration(np.ones(n_classes), np.zeros(n_classes))
    x, weight = logits(scores), known.astype(np.float64)
    centre = float(x[known].mean())
    x, sign = x - centre, np.where(labels, 1.0, -1.0)
    rows = max(1, BLOCK // n_classes)
    parts = [(x[at : at + rows], sign[at : at + rows], weight[at : at + rows]) for at in range(0, len(x), rows)]
    # what a parameter moves grows with its positives: in units of its spread the search needs a quarter of the steps
    positives = (labels & known).sum(axis=0)
    total = positives.sum(keepdims=True)
    spread = np.concatenate([4 * total, total, OWN_TEMPERATURE + 4 * positives, prior + positives]) ** -0.5

    def loss(scaled: Floats) -> tuple[float, Floats]:
        parameters = scaled * spread
        (log_shared, shared), (log_own, own) = parameters[:2], parameters[2:].reshape(2, n_classes)
        inverse = np.exp(-log_shared - log_own)
        value = prior / 2 * (own**2).sum() + OWN_TEMPERATURE / 2 * (log_own**2).sum()
        by_class, by_log = np.zeros((2, n_classes))
        for entries, correct, counted in parts:
            entropy, wrong = cross_entropy(correct * (entries * inverse + (shared + own)))
            pull = -correct * counted * wrong  # derivative of the loss by the calibrated logit
            value += (counted * entropy).sum()
            by_class += pull.sum(axis=0)
            by_log -= (pull * entries).sum(axis=0) * inverse
        slopes = [by_log.sum()], [by_class.sum()], by_log + OWN_TEMPERATURE * log_own, by_class + prior * own
        return float(value), np.concatenate(slopes) * spread

    bounds = [tuple(np.log(TEMPERATURES) / spread[0]), *[(None, None)] * (2 * n_classes + 1)]
    first, precision = np.zeros(2 * n_classes + 2), 1e-13
    if start is not None:  # at a minimum the shared values are the means of the classes'
        own = np.stack([np.log(start.temperature), start.shift + centre / start.temperature])
        shared = own.mean(axis=1, keepdims=True)
        first, precision = np.concatenate([shared.ravel(), (own - shared).ravel()]) / spread, 1e-8
    options = {"maxiter": 1000, "gtol": 1e-6, "ftol": precision}
    parameters = minimize(loss, first, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x * spread
    log_own, own = parameters[2:].reshape(2, n_classes)
    temperature = np.exp(parameters[0] + log_own)
    return Calibration(temperature, parameters[1] + own - centre / temperature)


def cross_calibrate(
    calibration: Calibration,
    labels: Bools,
    known: Bools,
    scores: Floats,
    prior: float,
    groups: NDArray[np.int64] | None = None,
) -> Floats:
    """Probabilities of rows by calibrations that have not seen them: a calibration lifts just those classes that have a
    positive among the rows it was fitted on.

    Args:
        calibration: of all these rows.
        labels, known, scores, prior: as in ``fit_calibration``.
        groups: int [image]; images of one group are seen together or not at all.

    Returns:
        [image, class] in [0, 1].
    """
    unit = np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1]
    folds = (np.random.default_rng(0).permutation(unit.max() + 1) % FOLDS)[unit]
    probabilities = np.empty(labels.shape)
    for fold in np.unique(folds):
        seen, rest = folds != fold, folds == fold
        fitted = fit_calibration(labels[seen], known[seen], scores[seen], prior, calibration)
        probabilities[rest] = calibrate(fitted, scores[rest])
    return probabilities


def brier(labels: Bools, known: Bools, probabilities: Floats) -> float:
    """Brier score: mean squared distance of probability and label over the known entries.

    Args:
        labels, known: bool [image, class].
        probabilities: [image, class].

    Returns:
        In [0, 1], lower is better; NaN without any known entry.
    """
    return float(((probabilities.astype(np.float64) - labels) ** 2)[known].mean()) if known.any() else float("nan")
