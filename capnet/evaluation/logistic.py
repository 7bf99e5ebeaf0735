"""Logistic regressions on frozen features, one binary problem a class, all solved at once.

Features count by their direction alone: centred on the training images, and each of length 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from capnet.evaluation.metrics import Bools, Floats

C = 20.0  # inverse regularisation: on features of length 1 one strength served all sets (docs/decisions.md)
TOLERANCE = 1e-4  # of the largest gradient of the mean loss, in units in which its curvature is about 1
ROUGH = 3e-4  # the same where fits score held-out rows
MOST_STEPS = 300
CHUNK = 1024  # images
TINY = 1e-12  # length of a feature that is the centre


@dataclass(frozen=True)
class Probe:
    """Fitted probe: logits = directions @ weight + bias; weight [feature, class], bias [class]."""

    centre: Floats
    weight: Floats
    bias: Floats


def centre_of(features: Any) -> Floats:
    """The mean feature, float64 [feature], of features [image, view, feature], an array or features of the store."""
    total = np.zeros(features.shape[-1])
    for start in range(0, len(features), CHUNK):
        total += np.asarray(features[start : start + CHUNK], dtype=np.float64).mean(axis=1).sum(axis=0)
    return total / max(len(features), 1)


def directions(features: Any, centre: Floats) -> Floats:
    """What the probe sees of images: the mean over views of (x - centre) / |x - centre|.

    Args:
        features: [image, view, feature], an array or features of the store, which are read some at a time.
        centre: [feature].

    Returns:
        float64 [image, feature]. The probe's logit of it is the mean of the logits of the views.
    """
    result = np.empty((len(features), features.shape[-1]))
    for start in range(0, len(features), CHUNK):
        offsets = np.asarray(features[start : start + CHUNK], dtype=np.float64) - centre
        lengths = np.linalg.norm(offsets, axis=-1, keepdims=True)
        result[start : start + CHUNK] = (offsets / np.maximum(lengths, TINY)).mean(axis=1)
    return result


def fit_logistic(
    columns: NDArray[np.float32],
    labels: Bools,
    known: Bools,
    tolerance: float,
    advance: Callable[[int], None],
) -> Floats:
    """Solve one binary problem a class, all at once.

    The objective is scikit-learn's: C times the sum of the logistic losses of a class's known rows, plus half the
    squared weights. Classes share nothing but the line search, so one matrix product serves all of them; scikit-learn
    takes them one after the other, and several times as long for 260 classes. Each coefficient is searched in units of
    its own, by the curvature at the start, which halves the steps and changes no solution. A class without a positive
    or without a negative gets weight 0 and the (smoothed) share of positives as a constant.

    Args:
        columns: [image, column], principal axes of the features.
        labels, known: bool [image, class].
        tolerance: of the largest gradient of the mean loss.
        advance: called with numbers of steps, MOST_STEPS together.

    Returns:
        Coefficients float64 [column + 1, class], the last row is the intercept.
    """
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits

    positives, rows = (labels & known).sum(axis=0), known.sum(axis=0)
    result = np.zeros((columns.shape[1] + 1, labels.shape[1]))
    result[-1] = np.log((positives + 0.5) / (rows - positives + 0.5))
    usable = np.flatnonzero((positives > 0) & (positives < rows))
    if not len(usable):
        advance(MOST_STEPS)
        return result
    x, y, importance, start, variance = (
        torch.from_numpy(np.asarray(item, dtype=np.float32))
        for item in (
            columns,
            labels[:, usable],
            known[:, usable],
            result[-1, usable],
            positives[usable] * (1 - positives[usable] / rows[usable]) / len(columns),
        )
    )
    penalty = 0.5 / (C * len(x))
    units = (x.square().mean(dim=0)[:, None] * variance + 2 * penalty).rsqrt()  # [column, class]
    offset = torch.zeros_like(units, requires_grad=True)
    intercept_offset = torch.zeros_like(start, requires_grad=True)

    def solution() -> tuple[torch.Tensor, torch.Tensor]:
        return offset * units, start + intercept_offset * variance.rsqrt()

    optimiser: torch.optim.Optimizer = torch.optim.LBFGS(
        [offset, intercept_offset],
        max_iter=MOST_STEPS,
        tolerance_grad=tolerance,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )
    left = MOST_STEPS

    def closure() -> float:
        nonlocal left
        optimiser.zero_grad()
        coefficients, intercept = solution()
        losses = binary_cross_entropy_with_logits(x @ coefficients + intercept, y, importance, reduction="sum") / len(x)
        value = losses + penalty * coefficients.square().sum()
        torch.autograd.backward(value)
        advance(min(left, 1))
        left -= min(left, 1)
        return float(value.detach())

    optimiser.step(closure)
    advance(left)
    result[:-1, usable], result[-1, usable] = (item.detach().numpy() for item in solution())
    return result


def fit_probe(
    features: Floats,
    centre: Floats,
    labels: Bools,
    known: Bools,
    tolerance: float = TOLERANCE,
    advance: Callable[[int], None] = lambda steps: None,
) -> Probe:
    """Fit all classes. Under an L2 penalty a rotation changes no score, so it is done on the features' principal axes.

    Args:
        features: ``directions`` of the training images around ``centre``, [image, feature].
        centre: [feature].
        labels, known: bool [image, class].
        tolerance, advance: as in ``fit_logistic``.
    """
    mean = features.mean(axis=0)
    if len(features) < features.shape[1]:  # fewer columns as well
        left, size, transposed = np.linalg.svd(features - mean, full_matrices=False)
        axes, columns = transposed.T, (left * size).astype(np.float32)
    else:  # float32 as it is fitted, and turned in place, without a copy on the way
        columns = np.subtract(features, mean, out=np.empty(features.shape, np.float32), casting="same_kind")
        axes = np.linalg.eigh((columns.T @ columns).astype(np.float64))[1]
        for start in range(0, len(columns), CHUNK):
            columns[start : start + CHUNK] = columns[start : start + CHUNK] @ axes
    fitted = fit_logistic(columns, labels, known, tolerance, advance)
    weight = axes @ fitted[:-1]
    return Probe(centre, weight, fitted[-1] - mean @ weight)


def probe_logits(probe: Probe, features: Any) -> Floats:
    """Logits float64 [image, class] of features [image, view, feature], the mean over views."""
    return directions(features, probe.centre) @ probe.weight + probe.bias


def probe_scores(probe: Probe, features: Any) -> NDArray[np.float32]:
    """Sigmoid scores [image, class] in [0, 1] of features [image, view, feature]."""
    return expit(probe_logits(probe, features)).astype(np.float32)
