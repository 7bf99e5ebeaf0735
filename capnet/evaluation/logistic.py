"""Logistic regressions on frozen features, one binary problem a class, all solved at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from capnet.evaluation.metrics import Bools, Floats
from capnet.progress import track

TOLERANCE = 1e-6  # of the largest gradient of the mean loss
ROUGH = 1e-4  # the same where fits are only compared or score held-out rows: a third of the time
MOST_STEPS = 300


@dataclass(frozen=True)
class Settings:
    """One way to fit the probe."""

    standardise: bool
    class_weight: str
    c: float


@dataclass(frozen=True)
class Probe:
    """Fitted probe: logits = features @ weight + bias; weight [feature, class], bias [class]."""

    weight: Floats
    bias: Floats


@dataclass(frozen=True)
class Design:
    """Training features turned into at most as many columns as rows: under an L2 penalty a rotation changes no
    score.
    """

    columns: Floats  # [train image, column]
    centre: Floats  # [feature]
    spread: Floats  # [feature]
    rotation: Floats | None  # [column, feature]

    def turn(self, features: Floats) -> Floats:
        """Features [image, feature] of other images in the same columns, [image, column]."""
        scaled = (features - self.centre) / self.spread
        return scaled if self.rotation is None else scaled @ self.rotation.T

    def probe(self, coefficients: Floats) -> Probe:
        """Back to the features' own axes; coefficients [column + 1, class], the last row is the intercept."""
        inner = coefficients[:-1] if self.rotation is None else self.rotation.T @ coefficients[:-1]
        weight = inner / self.spread[:, None]
        return Probe(weight, coefficients[-1] - self.centre @ weight)


def make_design(features: Floats, standardise: bool) -> Design:
    """Columns of training features [image, feature], centred, with ``standardise`` also scaled."""
    features = features.astype(np.float64)
    centre = features.mean(axis=0)
    spread = features.std(axis=0) if standardise else np.ones(features.shape[1])
    spread = np.where(spread > 1e-9 * max(1.0, float(np.abs(features).max(initial=0))), spread, 1.0)
    columns = (features - centre) / spread
    if len(columns) >= columns.shape[1]:
        return Design(columns, centre, spread, None)
    left, size, right = np.linalg.svd(columns, full_matrices=False)
    return Design(left * size, centre, spread, right)


def fit_logistic(
    columns: Floats,
    labels: Bools,
    known: Bools,
    class_weight: str,
    strengths: Sequence[float],
    tolerance: float = ROUGH,
    what: str = "",
) -> Floats:
    """Solve one binary problem a class, all at once; each strength starts from the one before.

    The objective is scikit-learn's: C times the sum of the weighted logistic losses of a class's known rows, plus half
    the squared weights. Classes share nothing but the line search, so one matrix product serves all of them;
    scikit-learn takes them one after the other, and several times as long for 260 classes. A class without a positive
    or without a negative gets weight 0 and the (smoothed) share of positives as a constant.

    Args:
        columns: [image, column].
        labels, known: bool [image, class].
        class_weight: none, or balanced as in scikit-learn, over the known rows of a class.
        strengths: C, inverse regularisation.
        tolerance: of the largest gradient of the mean loss.
        what: names the fits in the progress bar; "" shows none.

    Returns:
        Coefficients float64 [strength, column + 1, class], the last row is the intercept.
    """
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits

    positives, rows = (labels & known).sum(axis=0), known.sum(axis=0)
    result = np.zeros((len(strengths), columns.shape[1] + 1, labels.shape[1]))
    result[:, -1] = np.log((positives + 0.5) / (rows - positives + 0.5))
    usable = np.flatnonzero((positives > 0) & (positives < rows))
    if not len(usable):
        return result
    balanced = class_weight == "balanced"
    for_positives = rows[usable] / (2 * positives[usable]) if balanced else np.ones(len(usable))
    for_negatives = rows[usable] / (2 * (rows - positives)[usable]) if balanced else np.ones(len(usable))
    weight = np.where(labels[:, usable], for_positives, for_negatives) * known[:, usable]
    x, y, importance = (
        torch.from_numpy(np.asarray(item, dtype=np.float32)) for item in (columns, labels[:, usable], weight)
    )
    coefficients = torch.zeros(x.shape[1], len(usable), requires_grad=True)
    intercept = torch.from_numpy(result[0, -1, usable]).float().requires_grad_(True)
    for index, strength in enumerate(track(strengths, what, len(strengths)) if what else strengths):
        penalty = 0.5 / (strength * len(x))
        optimiser: torch.optim.Optimizer = torch.optim.LBFGS(
            [coefficients, intercept],
            max_iter=MOST_STEPS,
            tolerance_grad=tolerance,
            tolerance_change=0,
            line_search_fn="strong_wolfe",
        )

        def closure(optimiser: Any = optimiser, penalty: float = penalty) -> float:
            optimiser.zero_grad()
            losses = binary_cross_entropy_with_logits(
                x @ coefficients + intercept, y, importance, reduction="sum"
            ) / len(x)
            value = losses + penalty * coefficients.square().sum()
            torch.autograd.backward(value)
            return float(value.detach())

        optimiser.step(closure)
        result[index, :-1, usable] = coefficients.detach().T.numpy()
        result[index, -1, usable] = intercept.detach().numpy()
    return result


def linear_logits(columns: Floats, coefficients: Floats) -> Floats:
    """Logits [strength, image, class] of columns [image, column] by coefficients of ``fit_logistic``."""
    return columns @ coefficients[:, :-1] + coefficients[:, -1:]


def fit_probe(features: Floats, labels: Bools, known: Bools, settings: Settings, tolerance: float = TOLERANCE) -> Probe:
    """Fit all classes with given settings: features [image, feature], labels and known bool [image, class]."""
    design, weight = make_design(features, settings.standardise), settings.class_weight
    return design.probe(fit_logistic(design.columns, labels, known, weight, [settings.c], tolerance, "linear probe")[0])
