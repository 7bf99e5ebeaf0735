"""The linear probe: what a hurried user would fit instead, logistic regressions on frozen pooled features.

One binary problem per class (scikit-learn), on features averaged over the test-time views: the average of a linear score
over views equals the score at the mean feature, so these are the views that CapNet sees. Standardised or not, C and class
weights are shared by all classes and chosen by mAP on the validation rows, or in stratified folds of the training rows
where there are none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from capnet.evaluation.metrics import Bools, Floats, average_precision, mean_over
from capnet.progress import bar, track

CLASS_WEIGHTS = ("none", "balanced")
FOLDS = 3
TOLERANCE = 1e-5  # at scikit-learn's 1e-4 a fit depends on where it starts: 0.3 points of mAP on the demo
MOST_CLASSES = 60  # settings are shared by all classes, so with more than these they are chosen on a spread of them
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


_Judge = Callable[[str, int, Sequence[float]], Floats]  # class weight, class, strengths -> logits [strength, judged picture]


@dataclass(frozen=True)
class _Design:
    """Training features turned into at most as many columns as rows: under an L2 penalty a rotation changes no score."""

    columns: Floats  # [train picture, column]
    centre: Floats
    spread: Floats
    rotation: Floats | None  # [column, feature]

    def turn(self, features: Floats) -> Floats:
        """Other pictures in the same columns."""
        scaled = (features - self.centre) / self.spread
        return scaled if self.rotation is None else scaled @ self.rotation.T

    def probe(self, coefficients: Floats) -> Probe:
        """Back to the features' own axes; coefficients [column + 1, class], the last row is the intercept."""
        inner = coefficients[:-1] if self.rotation is None else self.rotation.T @ coefficients[:-1]
        weight = inner / self.spread[:, None]
        return Probe(weight, coefficients[-1] - self.centre @ weight)


def _design(features: Floats, standardise: bool) -> _Design:
    features = features.astype(np.float64)
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
    model = LogisticRegression(warm_start=True, tol=TOLERANCE, max_iter=5000, class_weight=None if class_weight == "none" else class_weight)
    x, y = (columns, label) if rows == len(label) else (columns[known], label[known])
    for index, strength in enumerate(strengths):
        model.set_params(C=strength).fit(x, y)
        result[index, :-1], result[index, -1] = model.coef_[0], model.intercept_[0]
    return result


def fit_probe(features: Floats, labels: Bools, known: Bools, settings: Settings) -> Probe:
    """Fit all classes with given settings; features [picture, feature], labels and known [picture, class]."""
    design = _design(features, settings.standardise)
    coefficients = np.zeros((design.columns.shape[1] + 1, labels.shape[1]))
    for c in track(range(labels.shape[1]), "linear probe", labels.shape[1]):
        coefficients[:, c] = _fit_class(design.columns, labels[:, c], known[:, c], settings.class_weight, [settings.c])[0]
    return design.probe(coefficients)


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
    if validation is not None and (validation[1] & validation[2]).any():
        seen, val_labels, val_known = validation
        some = _spread(labels & known, (val_labels & val_known).sum(axis=0) > 0)

        def on_validation(design: _Design) -> _Judge:
            turned = design.turn(seen).T

            def logits(class_weight: str, c: int, strengths: Sequence[float]) -> Floats:
                fitted = _fit_class(design.columns, labels[:, c], known[:, c], class_weight, strengths)
                return fitted[:, :-1] @ turned + fitted[:, -1:]

            return logits

        settings, value = _best(features, strengths, some, on_validation, val_labels, val_known)
        return Chosen(_shrunk(fit_probe(features, labels, known, settings), features)[0], settings, "val", value)
    return _choose_in_folds(features, labels, known, strengths)


def _choose_in_folds(features: Floats, labels: Bools, known: Bools, strengths: Sequence[float]) -> Chosen:
    """Choose on held-out scores of the training rows. A class with one positive (or one negative) says nothing about settings."""
    usable = ((labels & known).sum(axis=0) > 1) & ((~labels & known).sum(axis=0) > 1)
    measured = known & usable
    fold = np.stack([stratified_folds(labels[:, c], known[:, c]) for c in range(labels.shape[1])], axis=1)

    def held_out(design: _Design) -> _Judge:
        def logits(class_weight: str, c: int, strengths: Sequence[float]) -> Floats:
            found = np.zeros((len(strengths), len(labels)))
            for part in range(FOLDS):
                out = fold[:, c] == part
                fitted = _fit_class(design.columns, labels[:, c], known[:, c] & ~out, class_weight, strengths)
                found[:, out] = fitted[:, :-1] @ design.columns[out].T + fitted[:, -1:]
            return found

        return logits

    settings, value = _best(features, strengths, _spread(labels & known, usable), held_out, labels, measured)
    probe, factor = _shrunk(fit_probe(features, labels, known, settings), features)
    judge, logits = held_out(_design(features, settings.standardise)), np.zeros(labels.shape)
    for c in np.flatnonzero(usable).tolist():
        logits[:, c] = judge(settings.class_weight, c, [settings.c])[0]
    return Chosen(probe, settings, "folds", value, expit(logits * factor).astype(np.float32), measured)


def _best(
    features: Floats, strengths: Sequence[float], some: list[int], prepare: Callable[[_Design], _Judge], labels: Bools, known: Bools
) -> tuple[Settings, float]:
    """The settings of the highest mAP (of equal ones the first) over ``some`` classes on the judged rows' labels, known [picture, class]."""
    ordered = sorted(strengths)
    tried: list[tuple[float, Settings]] = []
    with bar("linear probe: settings", 2 * len(CLASS_WEIGHTS) * len(some)) as advance:
        for standardise in (False, True):
            judge = prepare(_design(features, standardise))
            for class_weight in CLASS_WEIGHTS:
                logits = np.zeros((len(ordered), len(labels), len(some)))
                for index, c in enumerate(some):
                    logits[:, :, index] = judge(class_weight, c, ordered)
                    advance()
                for strength, found in zip(ordered, logits, strict=True):
                    value = float(mean_over(average_precision(labels[:, some], found, known[:, some]))) if len(some) else float("nan")
                    tried.append((round(value, 9), Settings(standardise, class_weight, strength)))
    value, settings = max(tried, key=lambda item: item[0])
    return settings, value


def _spread(positives: Bools, usable: Bools) -> list[int]:
    """At most MOST_CLASSES usable classes, evenly spread from frequent to rare."""
    counts = positives.sum(axis=0)
    order = np.flatnonzero(usable)[np.argsort(-counts[usable], kind="stable")]
    chosen = order if len(order) <= MOST_CLASSES else order[np.linspace(0, len(order) - 1, MOST_CLASSES).round().astype(int)]
    return [int(c) for c in chosen]


def stratified_folds(label: Bools, known: Bools, folds: int = FOLDS, seed: int = 0) -> NDArray[np.int64]:
    """Fold [picture] of one class's rows: known positives and known negatives are dealt out in turn after a shuffle; -1 elsewhere."""
    generator = np.random.default_rng(seed)
    fold = np.full(len(label), -1, dtype=np.int64)
    for rows in (np.flatnonzero(label & known), np.flatnonzero(~label & known)):
        fold[generator.permutation(rows)] = np.arange(len(rows)) % folds
    return fold


def describe(chosen: Chosen, train_rows: int) -> dict[str, Any]:
    """How the probe was chosen, for metrics.json."""
    content: dict[str, Any] = {"standardise": chosen.settings.standardise, "class_weight": chosen.settings.class_weight, "c": chosen.settings.c}
    content |= {"chosen_on": chosen.chosen_on, "train_rows": train_rows}
    return content | ({"selection_mAP": chosen.selection_map} if np.isfinite(chosen.selection_map) else {})
