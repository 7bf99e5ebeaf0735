"""The linear probe: what a hurried user would fit instead, logistic regressions on frozen pooled features.

One binary problem per class (scikit-learn), on features averaged over the test-time views: the average of a linear score
over views equals the score at the mean feature, so these are the views that CapNet sees. Standardised or not, C and class
weights are chosen by mAP on the validation rows, or in stratified folds of the training rows where there are none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from capnet.evaluation.metrics import Bools, Floats, average_precision, mean_over
from capnet.progress import bar

CLASS_WEIGHTS = ("none", "balanced")
FOLDS = 3
LARGEST_LOGIT = 8.0  # on the training rows; beyond about 16 a float32 sigmoid is 1 and different scores become equal


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
class Chosen:
    """The probe fitted on all training rows, how it was chosen, and held-out scores of the training rows where folds were used."""

    probe: Probe
    settings: Settings
    chosen_on: str  # val or folds
    selection_map: float  # NaN where no class could be measured
    held_out: NDArray[np.float32] | None = None  # [train picture, class]
    held_out_known: Bools | None = None


@dataclass(frozen=True)
class _Design:
    """Training features turned into at most as many columns as rows: under an L2 penalty a rotation changes no score."""

    columns: Floats  # [train picture, column]
    centre: Floats
    spread: Floats
    rotation: Floats | None  # [column, feature]

    def probe(self, coefficients: Floats) -> Probe:
        """Back to the features' own axes; coefficients [column + 1, class], the last row is the intercept."""
        inner = coefficients[:-1] if self.rotation is None else self.rotation.T @ coefficients[:-1]
        weight = inner / self.spread[:, None]
        return Probe(weight, coefficients[-1] - self.centre @ weight)


def _design(features: Floats, standardise: bool) -> _Design:
    centre = features.mean(axis=0)
    spread = features.std(axis=0) if standardise else np.ones(features.shape[1])
    spread = np.where(spread > 1e-9 * max(1.0, float(np.abs(features).max(initial=0))), spread, 1.0)
    columns = (features - centre) / spread
    if len(columns) >= columns.shape[1]:
        return _Design(columns, centre, spread, None)
    left, size, right = np.linalg.svd(columns, full_matrices=False)
    return _Design(left * size, centre, spread, right)


def _fit_class(columns: Floats, label: Bools, known: Bools, class_weight: str, strengths: Sequence[float]) -> Floats:
    """Coefficients [strength, column + 1] of one binary problem on the known rows; each starts from the one before.

    Without a positive or without a negative: weight 0 and the (smoothed) share of positives as a constant.
    """
    from sklearn.linear_model import LogisticRegression

    result = np.zeros((len(strengths), columns.shape[1] + 1))
    positives, rows = int((label & known).sum()), int(known.sum())
    if positives in (0, rows):
        result[:, -1] = np.log((positives + 0.5) / (rows - positives + 0.5))
        return result
    model = LogisticRegression(warm_start=True, max_iter=2000, class_weight=None if class_weight == "none" else class_weight)
    x, y = (columns, label) if rows == len(label) else (columns[known], label[known])
    for index, strength in enumerate(strengths):
        model.set_params(C=strength).fit(x, y)
        result[index, :-1], result[index, -1] = model.coef_[0], model.intercept_[0]
    return result


def fit_probe(features: Floats, labels: Bools, known: Bools, settings: Settings) -> Probe:
    """Fit all classes with given settings; features [picture, feature], labels and known [picture, class]."""
    design = _design(features.astype(np.float64), settings.standardise)
    fits = [_fit_class(design.columns, labels[:, c], known[:, c], settings.class_weight, [settings.c]) for c in range(labels.shape[1])]
    return design.probe(np.stack(fits, axis=-1)[0])


def probe_logits(probe: Probe, features: Floats) -> Floats:
    """Logits [picture, class], float64."""
    return features.astype(np.float64) @ probe.weight + probe.bias


def probe_scores(probe: Probe, features: Floats) -> NDArray[np.float32]:
    """Sigmoid scores [picture, class] in [0, 1]."""
    return expit(probe_logits(probe, features)).astype(np.float32)


def _shrunk(probe: Probe, features: Floats) -> tuple[Probe, float]:
    """The probe with all logits scaled by one factor so that float32 scores stay apart: no rank and no sign changes."""
    factor = min(1.0, LARGEST_LOGIT / max(float(np.abs(probe_logits(probe, features)).max(initial=0)), 1e-12))
    return Probe(probe.weight * factor, probe.bias * factor), factor


def choose_probe(features: Floats, labels: Bools, known: Bools, strengths: Sequence[float], validation: tuple[Floats, Bools, Bools] | None) -> Chosen:
    """Choose the settings by mAP and fit on all training rows; ``validation`` is (features, labels, known) of other rows."""
    features, ordered = features.astype(np.float64), sorted(strengths)
    if validation is not None and (validation[1] & validation[2]).any():
        seen, val_labels, val_known = validation
        best = None
        for settings, probe in _paths(features, labels, known, ordered):
            value = float(mean_over(average_precision(val_labels, probe_logits(probe, seen), val_known)[:, None])[0])
            if best is None or value > best[0] + 1e-12:
                best = (value, settings, probe)
        assert best is not None
        return Chosen(_shrunk(best[2], features)[0], best[1], "val", best[0])
    return _choose_in_folds(features, labels, known, ordered)


def _paths(features: Floats, labels: Bools, known: Bools, strengths: Sequence[float]) -> Iterator[tuple[Settings, Probe]]:
    """Every setting with its probe fitted on all rows."""
    n_classes = labels.shape[1]
    with bar("linear probe", 2 * len(CLASS_WEIGHTS) * n_classes) as advance:
        for standardise in (False, True):
            design = _design(features, standardise)
            for class_weight in CLASS_WEIGHTS:
                fits = []
                for c in range(n_classes):
                    fits.append(_fit_class(design.columns, labels[:, c], known[:, c], class_weight, strengths))
                    advance()
                for strength, coefficients in zip(strengths, np.stack(fits, axis=-1), strict=True):
                    yield Settings(standardise, class_weight, strength), design.probe(coefficients)


def stratified_folds(label: Bools, known: Bools, folds: int = FOLDS, seed: int = 0) -> NDArray[np.int64]:
    """Fold [picture] of one class's rows: known positives and known negatives are dealt out in turn after a shuffle; -1 elsewhere."""
    generator = np.random.default_rng(seed)
    fold = np.full(len(label), -1, dtype=np.int64)
    for rows in (np.flatnonzero(label & known), np.flatnonzero(~label & known)):
        fold[generator.permutation(rows)] = np.arange(len(rows)) % folds
    return fold


def _choose_in_folds(features: Floats, labels: Bools, known: Bools, strengths: Sequence[float]) -> Chosen:
    """Choose on held-out scores of the training rows. A class with one positive (or one negative) says nothing about settings."""
    n_classes = labels.shape[1]
    usable = ((labels & known).sum(axis=0) > 1) & ((~labels & known).sum(axis=0) > 1)
    measured = known & usable
    fold = np.stack([stratified_folds(labels[:, c], known[:, c]) for c in range(n_classes)], axis=1)
    best = None
    with bar("linear probe in folds", 2 * len(CLASS_WEIGHTS) * n_classes) as advance:
        for standardise in (False, True):
            columns = _design(features, standardise).columns
            for class_weight in CLASS_WEIGHTS:
                held_out = np.zeros((len(strengths), *labels.shape))
                for c in range(n_classes):
                    for part in range(FOLDS) if usable[c] else ():
                        out = fold[:, c] == part
                        fitted = _fit_class(columns, labels[:, c], known[:, c] & ~out, class_weight, strengths)
                        held_out[:, out, c] = fitted[:, :-1] @ columns[out].T + fitted[:, -1:]
                    advance()
                for strength, logits in zip(strengths, held_out, strict=True):
                    value = float(mean_over(average_precision(labels, logits, measured)[:, None])[0])
                    if best is None or value > best[0] + 1e-12:
                        best = (value, Settings(standardise, class_weight, strength), logits)
    assert best is not None
    value, settings, logits = best
    probe, factor = _shrunk(fit_probe(features, labels, known, settings), features)
    return Chosen(probe, settings, "folds", value, expit(logits * factor).astype(np.float32), measured)


def describe(chosen: Chosen, train_rows: int) -> dict[str, Any]:
    """How the probe was chosen, for metrics.json."""
    content: dict[str, Any] = {"standardise": chosen.settings.standardise, "class_weight": chosen.settings.class_weight, "c": chosen.settings.c}
    content |= {"chosen_on": chosen.chosen_on, "train_rows": train_rows}
    return content | ({"selection_mAP": chosen.selection_map} if np.isfinite(chosen.selection_map) else {})
