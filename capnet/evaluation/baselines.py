"""The linear probe: what a hurried user would fit instead, logistic regressions on frozen pooled features.

One binary problem per class (scikit-learn's objective, solved for all classes at once), on features averaged over the
test-time views: the average of a linear score over views equals the score at the mean feature, so these are the views
that CapNet sees. Standardised or not, C and class weights are shared by all classes and chosen by mAP on the validation
rows, or in stratified folds of the training rows where there are none.
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
STRENGTHS = (0.01, 0.1, 1.0, 10.0)  # C, inverse regularisation
FOLDS = 3
TOLERANCE = 1e-6  # of the largest gradient of the mean loss
MOST_STEPS = 300
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
    """The fitted probe, how it was chosen, and scores of the rows it was chosen on by fits without them, where the
    probe has seen them.
    """

    probe: Probe
    settings: Settings
    chosen_on: str  # val or folds
    selection_map: float  # NaN where no class could be measured
    held_out: NDArray[np.float32] | None = None  # [picture, class]: training rows, or validation rows after a refit
    held_out_known: Bools | None = None


# class weight, classes, strengths -> logits [strength, judged image, class]
_Judge = Callable[[str, list[int], Sequence[float]], Floats]


@dataclass(frozen=True)
class _Design:
    """Training features turned into at most as many columns as rows: under an L2 penalty a rotation changes no
    score.
    """

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


def _fit(
    columns: Floats, labels: Bools, known: Bools, class_weight: str, strengths: Sequence[float], what: str = ""
) -> Floats:
    """Coefficients [strength, column + 1, class] of one binary problem a class, all solved at once; each strength
    starts from the one before.

    The objective is scikit-learn's: C times the sum of the weighted logistic losses of a class's known rows, plus half
    the squared weights. Classes share nothing but the line search, so one matrix product serves all of them;
    scikit-learn takes them one after the other, and several times as long for 260 classes. A class without a positive
    or without a negative gets weight 0 and the (smoothed) share of positives as a constant.
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
            tolerance_grad=TOLERANCE,
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


def fit_probe(features: Floats, labels: Bools, known: Bools, settings: Settings) -> Probe:
    """Fit all classes with given settings; features [picture, feature], labels and known [picture, class]."""
    design = _design(features, settings.standardise)
    return design.probe(_fit(design.columns, labels, known, settings.class_weight, [settings.c], "linear probe")[0])


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


def choose_probe(
    features: Floats,
    labels: Bools,
    known: Bools,
    strengths: Sequence[float],
    validation: tuple[Floats, Bools, Bools] | None,
    refit: bool = False,
) -> Chosen:
    """Choose the settings by mAP and fit on all training rows: features [image, feature], labels, known [image, class].

    ``validation`` is (features, labels, known) of other rows, which ``refit`` fits on too once they have chosen;
    without a known positive there, the choice is made in folds of the training rows.
    """
    if validation is not None and (validation[1] & validation[2]).any():
        seen, val_labels, val_known = validation
        some = _spread(labels & known, (val_labels & val_known).sum(axis=0) > 0)

        def on_validation(design: _Design) -> _Judge:
            turned = design.turn(seen)

            def logits(class_weight: str, chosen: list[int], strengths: Sequence[float]) -> Floats:
                fitted = _fit(design.columns, labels[:, chosen], known[:, chosen], class_weight, strengths)
                return turned @ fitted[:, :-1] + fitted[:, -1:]

            return logits

        settings, value = _best(features, strengths, some, on_validation, val_labels, val_known)
        probe = _shrunk(fit_probe(features, labels, known, settings), features)[0]
        if not refit:
            return Chosen(probe, settings, "val", value)
        held_out, pairs = probe_scores(probe, seen), zip((features, labels, known), validation, strict=True)
        features, labels, known = (np.concatenate(pair) for pair in pairs)
        probe = _shrunk(fit_probe(features, labels, known, settings), features)[0]
        return Chosen(probe, settings, "val", value, held_out, val_known)
    return _choose_in_folds(features, labels, known, strengths)


def _choose_in_folds(features: Floats, labels: Bools, known: Bools, strengths: Sequence[float]) -> Chosen:
    """Choose on held-out scores of the training rows. A class with one positive (or one negative) says nothing about
    settings.
    """
    usable = ((labels & known).sum(axis=0) > 1) & ((~labels & known).sum(axis=0) > 1)
    measured = known & usable
    fold = np.stack([stratified_folds(labels[:, c], known[:, c]) for c in range(labels.shape[1])], axis=1)

    def held_out(design: _Design) -> _Judge:
        def logits(class_weight: str, chosen: list[int], strengths: Sequence[float]) -> Floats:
            found = np.zeros((len(strengths), len(labels), len(chosen)))
            for part in range(FOLDS):
                out = fold[:, chosen] == part
                fitted = _fit(design.columns, labels[:, chosen], known[:, chosen] & ~out, class_weight, strengths)
                found = np.where(out, design.columns @ fitted[:, :-1] + fitted[:, -1:], found)
            return found

        return logits

    settings, value = _best(features, strengths, _spread(labels & known, usable), held_out, labels, measured)
    probe, factor = _shrunk(fit_probe(features, labels, known, settings), features)
    judge, logits = held_out(_design(features, settings.standardise)), np.zeros(labels.shape)
    everything = np.flatnonzero(usable).tolist()
    logits[:, everything] = judge(settings.class_weight, everything, [settings.c])[0]
    return Chosen(probe, settings, "folds", value, expit(logits * factor).astype(np.float32), measured)


def _best(
    features: Floats,
    strengths: Sequence[float],
    some: list[int],
    prepare: Callable[[_Design], _Judge],
    labels: Bools,
    known: Bools,
) -> tuple[Settings, float]:
    """The settings of the highest mAP (of equal ones the first) over ``some`` classes on the judged rows' labels, known
    [picture, class].
    """
    ordered = sorted(strengths)
    tried: list[tuple[float, Settings]] = []
    with bar("linear probe: settings", 2 * len(CLASS_WEIGHTS)) as advance:
        for standardise in (False, True):
            judge = prepare(_design(features, standardise))
            for class_weight in CLASS_WEIGHTS:
                for strength, found in zip(ordered, judge(class_weight, some, ordered), strict=True):
                    value = (
                        float(mean_over(average_precision(labels[:, some], found, known[:, some])))
                        if len(some)
                        else float("nan")
                    )
                    tried.append((round(value, 9), Settings(standardise, class_weight, strength)))
                advance()
    value, settings = max(tried, key=lambda item: item[0])
    return settings, value


def _spread(positives: Bools, usable: Bools) -> list[int]:
    """At most MOST_CLASSES usable classes, evenly spread from frequent to rare."""
    counts = positives.sum(axis=0)
    order = np.flatnonzero(usable)[np.argsort(-counts[usable], kind="stable")]
    chosen = (
        order if len(order) <= MOST_CLASSES else order[np.linspace(0, len(order) - 1, MOST_CLASSES).round().astype(int)]
    )
    return [int(c) for c in chosen]


def stratified_folds(label: Bools, known: Bools, folds: int = FOLDS, seed: int = 0) -> NDArray[np.int64]:
    """Fold [picture] of one class's rows: known positives and known negatives are dealt out in turn after a shuffle; -1
    elsewhere.
    """
    generator = np.random.default_rng(seed)
    fold = np.full(len(label), -1, dtype=np.int64)
    for rows in (np.flatnonzero(label & known), np.flatnonzero(~label & known)):
        fold[generator.permutation(rows)] = np.arange(len(rows)) % folds
    return fold


def describe(chosen: Chosen, train_rows: int) -> dict[str, Any]:
    """How the probe was chosen, for evaluation.json."""
    content: dict[str, Any] = {
        "standardise": chosen.settings.standardise,
        "class_weight": chosen.settings.class_weight,
        "c": chosen.settings.c,
    }
    content |= {"chosen_on": chosen.chosen_on, "train_rows": train_rows}
    return content | ({"selection_mAP": chosen.selection_map} if np.isfinite(chosen.selection_map) else {})
