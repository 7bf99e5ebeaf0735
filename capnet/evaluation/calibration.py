"""Calibration: p = sigmoid(logit(score) / T_c + shift_c), monotone per class, fitted on validation rows.

With a distribution-balanced loss a raw sigmoid is no probability: the loss shifts logits and weighs classes (Wu et
al., ECCV 2020). The shift of a class has a normal prior around a shared shift: a class with k expected positives moves
about k / (k + prior) of the way to the shift that its own rows ask for, so that rare classes lean on the others. The
logarithm of its temperature T_c has one around a shared temperature, because a blend of members is surer of frequent
classes than of rare ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, logit

from capnet.evaluation.metrics import Bools, Floats

EDGE = 1e-7  # scores are kept this far from 0 and 1: float32 holds no more
TEMPERATURES = (0.02, 50.0)  # the shared one stays inside, also where every class is separated perfectly
OWN_TEMPERATURE = 5.0  # precision of the prior: classes differ by 45 % of the shared temperature
FOLDS = 5


@dataclass(frozen=True)
class Calibration:
    """Temperature and shift, float64 [class]; the identity is Calibration(ones, zeros)."""

    temperature: Floats
    shift: Floats


def logits(scores: Floats) -> Floats:
    """Logit of sigmoid scores of any shape, float64 and finite."""
    return logit(np.clip(scores.astype(np.float64), EDGE, 1 - EDGE))


def calibrate(calibration: Calibration, scores: Floats) -> Floats:
    """Probabilities of scores [picture, class]; never falls where the score rises."""
    return expit(logits(scores) / calibration.temperature + calibration.shift)


def uncalibrate(calibration: Calibration, probability: float) -> Floats:
    """The score [class] that each class needs to have this probability: the inverse of ``calibrate``."""
    return expit((logits(np.array(probability)) - calibration.shift) * calibration.temperature)


def fit_calibration(labels: Bools, known: Bools, scores: Floats, prior: float) -> Calibration:
    """Minimise the binary cross entropy of the known entries plus prior / 2 * sum_c (shift_c - shift)^2 plus
    OWN_TEMPERATURE / 2 * sum_c (log T_c - log T)^2; shifts are compared at the mean logit.

    Args:
        labels, known: bool [image, class].
        scores: [image, class] in [0, 1].
        prior: precision of the prior of shifts, in expected positives.

    Returns:
        The calibration; the identity where the known entries have no positive or no negative.
    """
    return _fit(labels, known, logits(scores), prior).calibration


def cross_calibrate(labels: Bools, known: Bools, scores: Floats, prior: float) -> Floats:
    """Probabilities of rows by calibrations that have not seen them: on its own rows a calibration lifts just those
    classes of which they have a positive.

    Args:
        labels, known, scores, prior: as in ``fit_calibration``.

    Returns:
        [image, class] in [0, 1].
    """
    x, whole = logits(scores), _fit(labels, known, logits(scores), prior)
    folds = np.random.default_rng(0).permutation(len(labels)) % FOLDS
    probabilities = np.empty(labels.shape)
    for fold in range(min(FOLDS, len(labels))):
        seen, rest = folds != fold, folds == fold
        calibration = _fit(labels[seen], known[seen], x[seen], prior, whole).calibration
        probabilities[rest] = calibrate(calibration, scores[rest])
    return probabilities


@dataclass(frozen=True)
class _Fitted:
    """Parameters (log T, shift, log T_c - log T [class], shift_c - shift [class]) and the logit of the shifts."""

    parameters: Floats
    centre: float

    @property
    def calibration(self) -> Calibration:
        log_own, own = self.parameters[2:].reshape(2, -1)
        temperature = np.exp(self.parameters[0] + log_own)
        return Calibration(temperature, self.parameters[1] + own - self.centre / temperature)


def _fit(labels: Bools, known: Bools, x: Floats, prior: float, start: _Fitted | None = None) -> _Fitted:
    """As ``fit_calibration``, on logits ``x`` [image, class]; from ``start`` a rough fit is enough."""
    n_classes = labels.shape[1]
    if not (labels & known).any() or not (~labels & known).any():
        return _Fitted(np.zeros(2 * n_classes + 2), 0.0)
    weight, centre = known.astype(np.float64), float(x[known].mean()) if start is None else start.centre
    x, sign = x - centre, np.where(labels, 1.0, -1.0)
    # what a parameter moves grows with its positives: in units of its spread the search needs a quarter of the steps
    positives = (labels & known).sum(axis=0)
    total = positives.sum(keepdims=True)
    spread = np.concatenate([4 * total, total, OWN_TEMPERATURE + 4 * positives, prior + positives]) ** -0.5

    def loss(scaled: Floats) -> tuple[float, Floats]:
        parameters = scaled * spread
        (log_shared, shared), (log_own, own) = parameters[:2], parameters[2:].reshape(2, n_classes)
        inverse = np.exp(-log_shared - log_own)
        margin = sign * (x * inverse + shared + own)
        pull = -sign * weight * expit(-margin)  # derivative of the loss by the calibrated logit
        by_class, by_log = pull.sum(axis=0), -(pull * x).sum(axis=0) * inverse
        value = (weight * np.logaddexp(0.0, -margin)).sum() + prior / 2 * (own**2).sum()
        value += OWN_TEMPERATURE / 2 * (log_own**2).sum()
        parts = [by_log.sum()], [by_class.sum()], by_log + OWN_TEMPERATURE * log_own, by_class + prior * own
        return float(value), np.concatenate(parts) * spread

    shared = [(np.log(value) / spread[0]) for value in TEMPERATURES]
    bounds = [shared, *[(None, None)] * (2 * n_classes + 1)]
    first = np.zeros(2 * n_classes + 2) if start is None else start.parameters / spread
    options = {"maxiter": 1000, "gtol": 1e-6, "ftol": 1e-13 if start is None else 1e-8}
    fitted = minimize(loss, first, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    return _Fitted(fitted.x * spread, centre)


def brier(labels: Bools, known: Bools, probabilities: Floats) -> float:
    """Brier score: mean squared distance of probability and label over the known entries.

    Args:
        labels, known: bool [image, class].
        probabilities: [image, class].

    Returns:
        In [0, 1], lower is better; NaN without any known entry.
    """
    return float(((probabilities.astype(np.float64) - labels) ** 2)[known].mean()) if known.any() else float("nan")
