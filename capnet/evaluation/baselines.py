"""The linear probe: what a hurried user would fit instead, logistic regressions on frozen pooled features.

One binary problem per class (scikit-learn's objective, solved for all classes at once), on features averaged over the
test-time views: the average of a linear score over views equals the score at the mean feature, so these are the views
that CapNet sees. Standardised or not, C and class weights are shared by all classes and chosen by mAP on the validation
rows, or in stratified folds of the training rows where there are none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from capnet.evaluation.logistic import (
    ROUGH,
    Design,
    Probe,
    Settings,
    fit_logistic,
    fit_probe,
    linear_logits,
    make_design,
)
from capnet.evaluation.metrics import Bools, Floats, average_precision, mean_over
from capnet.progress import bar

CLASS_WEIGHTS = ("none", "balanced")
STRENGTHS = (0.01, 0.1, 1.0, 10.0)  # C, inverse regularisation
FOLDS = 3
MOST_CLASSES = 60  # settings are shared by all classes, so with more than these they are chosen on a spread of them
LARGEST_LOGIT = 8.0  # on the training rows; beyond about 16 a float32 sigmoid is 1 and different scores become equal


@dataclass(frozen=True)
class Chosen:
    """The fitted probe, how it was chosen, and scores of the rows it was chosen on by fits without them, where the
    probe has seen them.
    """

    probe: Probe
    settings: Settings
    chosen_on: str  # val or folds
    selection_map: float  # NaN where no class could be measured
    held_out: NDArray[np.float32] | None = None  # [image, class]: training rows, validation rows or both
    held_out_known: Bools | None = None

    def document(self) -> dict[str, Any]:
        """How the probe was chosen, as it stands in evaluation.json and in the probe's file."""
        content = {**asdict(self.settings), "chosen_on": self.chosen_on}
        return content | ({"selection_mAP": self.selection_map} if np.isfinite(self.selection_map) else {})


_Rows = tuple[Floats, Bools, Bools]  # features [image, feature], labels [image, class], known [image, class]
# class weight, classes, strengths -> logits [strength, held-out image, class]
_HeldOutLogits = Callable[[str, list[int], Sequence[float]], Floats]


def probe_logits(probe: Probe, features: Floats) -> Floats:
    """Logits float64 [image, class] of features [image, feature]."""
    return features.astype(np.float64) @ probe.weight + probe.bias


def probe_scores(probe: Probe, features: Floats) -> NDArray[np.float32]:
    """Sigmoid scores [image, class] in [0, 1] of features [image, feature]."""
    return expit(probe_logits(probe, features)).astype(np.float32)


def _shrunk(probe: Probe, features: Floats) -> tuple[Probe, float]:
    """The probe with all logits scaled by one factor so that float32 scores stay apart: no rank and no sign changes."""
    factor = min(1.0, LARGEST_LOGIT / max(float(np.abs(probe_logits(probe, features)).max(initial=0)), 1e-12))
    return Probe(probe.weight * factor, probe.bias * factor), factor


def choose_probe(
    features: Floats,
    labels: Bools,
    known: Bools,
    strengths: Sequence[float],
    validation: _Rows | None,
    refit: bool = False,
    folds: NDArray[np.int64] | None = None,
    groups: NDArray[np.int64] | None = None,
) -> Chosen:
    """Choose the settings by mAP on the validation rows, or in folds of the training rows where those have no known
    positive, and fit on all training rows.

    Args:
        features: of the training rows, [image, feature].
        labels, known: of the training rows, bool [image, class].
        strengths: C, inverse regularisation, to try.
        validation: features, labels and known of the validation rows.
        refit: fit on the validation rows, too, once they have chosen.
        folds: int [image], of the rows that are fitted on in the end: asks for held-out scores of all of these, by fits
            without their fold.
        groups: int [image], of the training rows: folds that are made here divide none.

    Returns:
        The probe, how it was chosen, and held-out scores of the rows that it has seen.
    """
    own = features, labels, known
    if validation is None or not (validation[1] & validation[2]).any():
        chosen = _choose_in_folds(*own, strengths, groups)
        return chosen if folds is None else score_out_of_fold(chosen, *own, folds)
    settings, value = _choose_on_validation(own, validation, strengths)

    def fitted(rows: _Rows) -> Probe:
        return _shrunk(fit_probe(*rows, settings), rows[0])[0]

    if not refit:
        return Chosen(fitted(own), settings, "val", value)
    both = _concatenated(own, validation)
    if folds is not None:
        return score_out_of_fold(Chosen(fitted(both), settings, "val", value), *both, folds)
    return Chosen(fitted(both), settings, "val", value, probe_scores(fitted(own), validation[0]), validation[2])


def _concatenated(*rows: _Rows) -> _Rows:
    """Features, labels and known of several tables of rows, one after the other."""
    features, labels, known = (np.concatenate(arrays) for arrays in zip(*rows, strict=True))
    return features, labels, known


def _choose_on_validation(train: _Rows, validation: _Rows, strengths: Sequence[float]) -> tuple[Settings, float]:
    """The settings whose fit on the training rows has the highest mAP on the validation rows, and that mAP."""
    features, labels, known = train
    val_features, val_labels, val_known = validation

    def on_validation(design: Design) -> _HeldOutLogits:
        columns = design.turn(val_features)

        def logits(class_weight: str, chosen: list[int], strengths: Sequence[float]) -> Floats:
            fitted = fit_logistic(design.columns, labels[:, chosen], known[:, chosen], class_weight, strengths)
            return linear_logits(columns, fitted)

        return logits

    some = _spread(labels & known, (val_labels & val_known).sum(axis=0) > 0)
    return _best(features, strengths, some, on_validation, val_labels, val_known)


def _choose_in_folds(
    features: Floats, labels: Bools, known: Bools, strengths: Sequence[float], groups: NDArray[np.int64] | None
) -> Chosen:
    """Choose on held-out scores of the training rows. A class whose positives (or negatives) all lie in one fold says
    nothing about settings.
    """
    fold = np.stack([class_folds(labels[:, c], known[:, c], groups) for c in range(labels.shape[1])], axis=1)
    usable = _in_two_folds(labels & known, fold) & _in_two_folds(~labels & known, fold)
    measured = known & usable

    def held_out(design: Design) -> _HeldOutLogits:
        def logits(class_weight: str, chosen: list[int], strengths: Sequence[float]) -> Floats:
            scores = np.zeros((len(strengths), len(labels), len(chosen)))
            for part in range(FOLDS):
                out = fold[:, chosen] == part
                fitted = fit_logistic(
                    design.columns, labels[:, chosen], known[:, chosen] & ~out, class_weight, strengths
                )
                scores = np.where(out, linear_logits(design.columns, fitted), scores)
            return scores

        return logits

    settings, value = _best(features, strengths, _spread(labels & known, usable), held_out, labels, measured)
    probe, factor = _shrunk(fit_probe(features, labels, known, settings), features)
    logits_of, logits = held_out(make_design(features, settings.standardise)), np.zeros(labels.shape)
    everything = np.flatnonzero(usable).tolist()
    logits[:, everything] = logits_of(settings.class_weight, everything, [settings.c])[0]
    return Chosen(probe, settings, "folds", value, expit(logits * factor).astype(np.float32), measured)


def score_out_of_fold(
    chosen: Chosen, features: Floats, labels: Bools, known: Bools, folds: NDArray[np.int64]
) -> Chosen:
    """The probe that was fitted on these rows, with scores of each by a fit of the same settings without its fold.

    Args:
        chosen: the probe.
        features: [image, feature].
        labels, known: bool [image, class].
        folds: the fold of each image, int [image].

    Returns:
        ``chosen`` with other held-out scores.
    """
    scores = np.zeros(labels.shape, dtype=np.float32)
    for fold in np.unique(folds):
        inside, outside = folds != fold, folds == fold
        probe = fit_probe(features[inside], labels[inside], known[inside], chosen.settings, ROUGH)
        scores[outside] = probe_scores(_shrunk(probe, features[inside])[0], features[outside])
    return replace(chosen, held_out=scores, held_out_known=known)


def _best(
    features: Floats,
    strengths: Sequence[float],
    some: list[int],
    prepare: Callable[[Design], _HeldOutLogits],
    labels: Bools,
    known: Bools,
) -> tuple[Settings, float]:
    """The settings of the highest mAP (of equal ones the first) over ``some`` classes; labels and known are those of
    the held-out rows, [image, class].
    """
    ordered = sorted(strengths)
    tried: list[tuple[float, Settings]] = []
    with bar("linear probe: settings", 2 * len(CLASS_WEIGHTS)) as advance:
        for standardise in (False, True):
            logits_of = prepare(make_design(features, standardise))
            for class_weight in CLASS_WEIGHTS:
                for strength, logits in zip(ordered, logits_of(class_weight, some, ordered), strict=True):
                    value = float("nan")
                    if some:
                        value = float(mean_over(average_precision(labels[:, some], logits, known[:, some])))
                    tried.append((round(value, 9), Settings(standardise, class_weight, strength)))
                advance()
    value, settings = max(tried, key=lambda item: item[0])
    return settings, value


def _spread(positives: Bools, usable: Bools) -> list[int]:
    """At most MOST_CLASSES usable classes, evenly spread from frequent to rare."""
    counts = positives.sum(axis=0)
    order = np.flatnonzero(usable)[np.argsort(-counts[usable], kind="stable")]
    if len(order) > MOST_CLASSES:
        order = order[np.linspace(0, len(order) - 1, MOST_CLASSES).round().astype(int)]
    return [int(c) for c in order]


def class_folds(label: Bools, known: Bools, groups: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """The folds of one class's rows: known positives and known negatives are dealt out in turn after a shuffle.

    Args:
        label, known: bool [image].
        groups: int [image]; groups are dealt out whole, those with a positive first.

    Returns:
        int64 [image], one of FOLDS; -1 where the label is unknown.
    """
    generator = np.random.default_rng(0)
    unit = np.arange(len(label)) if groups is None else np.unique(groups, return_inverse=True)[1]
    positive, seen = (np.bincount(unit, weights=rows) > 0 for rows in (label & known, known))
    fold = np.full(len(seen), -1, dtype=np.int64)
    for units in (np.flatnonzero(positive), np.flatnonzero(seen & ~positive)):
        fold[generator.permutation(units)] = np.arange(len(units)) % FOLDS
    return np.where(known, fold[unit], -1)


def _in_two_folds(rows: Bools, fold: NDArray[np.int64]) -> Bools:
    """Whether the rows [image, class] of a class lie in more than one of its folds [image, class]."""
    return np.sum([(rows & (fold == part)).any(axis=0) for part in range(FOLDS)], axis=0) > 1
