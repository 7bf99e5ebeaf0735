"""Decision thresholds per class: best F1, a recall or a precision to reach; rare classes borrow a pooled threshold.

A label is given where score >= threshold. Thresholds are float32 numbers in the unit of the scores, and hold only for
scores made with the same test-time views.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from capnet.contracts import SCHEMA, Classes, check_schema, read_json, reading
from capnet.errors import Problem
from capnet.evaluation.calibration import Calibration, calibrate, cross_calibrate, fit_calibration, uncalibrate
from capnet.evaluation.metrics import CUT, Bools, Floats, count, precision, recall

TINY = 1e-9  # sums of shares of a group


@dataclass(frozen=True)
class Cut:
    """A threshold and whether it reaches the objective on the rows it was chosen on."""

    threshold: float
    reached: bool


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
    pooled_probability: float
    calibration: Calibration


def choose_cut(labels: Bools, scores: Floats, objective: str, groups: NDArray[np.int64] | None = None) -> Cut:
    """Choose among the distinct scores as cuts.

    Args:
        labels: bool [entry], at least one of them true.
        scores: [entry].
        objective: ``f1``: the cut with the best F1 (of equal ones the highest), placed half-way to the next lower
            score. ``recall>=R``: the highest cut that promises R for images still to come; where there are too few
            positives for a promise, the lowest positive, not ``reached``. ``precision>=P``: the lowest cut whose
            precision reaches P; where none does, the cut of highest precision (of equal ones the lowest), not
            ``reached``.
        groups: int [entry]; a recall is then promised for images of groups still to come, and all positives of a
            group together count as one.

    Returns:
        The cut; a label is given from its threshold on.
    """
    order = np.argsort(-scores, kind="stable")
    value = scores[order]
    last = np.append(value[1:] != value[:-1], True)
    cuts, given = value[last], np.flatnonzero(last) + 1
    name, _, number = objective.partition(">=")
    if name == "recall":
        reached = np.cumsum(_weights(labels, groups)[order])[last]
        wanted = hits_to_promise(float(number), reached[-1])
        return Cut(
            float(cuts[np.argmax(reached >= min(wanted, reached[-1]) - TINY)]), _can_promise(number, reached[-1])
        )
    hit = np.cumsum(labels[order])[last]
    if name == "f1":
        best = int(np.argmax(2 * hit / (given + hit[-1])))
        return Cut(_below(cuts, best), True)
    shares = hit / given
    fine = np.flatnonzero(shares >= float(number) - 1e-12)
    chosen = fine[-1] if len(fine) else np.flatnonzero(shares == shares.max())[-1]
    return Cut(float(cuts[chosen]), bool(len(fine)))


def hits_to_promise(recall: float, positives: ArrayLike) -> Floats:
    """How many of these positives a cut must reach so that another positive is reached with this probability.

    The cut that just reaches the share ``recall`` of k positives reaches fewer of the next ones, by up to a whole
    positive. Where old and new positives are exchangeable, recall (k + 1) hits are enough: split conformal prediction
    (Vovk et al., 2005; Angelopoulos and Bates, arXiv 2107.07511, section 1), here on the scores of positives. Of k
    groups, each of which counts as one, the same holds for a positive of another group (Lee, Barber and Willett, arXiv
    2306.06342). More than k says that no cut can promise it.
    """
    return recall * (np.asarray(positives) + 1.0)


def _can_promise(recall: float | str, positives: ArrayLike) -> Any:
    positives = np.asarray(positives)
    return (positives > 0) & (hits_to_promise(float(recall), positives) <= positives + TINY)


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
    return float(middle) if middle > np.float32(cuts[index + 1]) else float(cuts[index])


def choose_thresholds(
    labels: Bools,
    known: Bools,
    scores: Floats,
    objective: str,
    min_positives: int,
    prior: float,
    groups: NDArray[np.int64] | None = None,
) -> Thresholds:
    """Choose a threshold per class on the known entries.

    A class with too few positives borrows: one cut is chosen on calibrated probabilities over the entries of several
    classes together, and mapped back to the class's own score. For a recall these are the classes that borrow, because
    a promise over all classes is kept by the frequent ones (class-conditional conformal prediction by clusters: Ding et
    al., NeurIPS 2023), and their probabilities are by calibrations that have not seen the row; else, and where those
    classes have too few positives together, all classes.

    Args:
        labels, known: bool [image, class].
        scores: float32 [image, class] in [0, 1].
        objective: as in ``choose_cut``.
        min_positives: known positives below which a class borrows; also one whose own could not promise the recall.
        prior: as in ``fit_calibration``.
        groups: int [image], as in ``choose_cut``. With too few groups for a promise of the recall about other groups,
            each positive counts for itself and no class is ``reached``. Nor is a class without positives, except for
            f1, which promises nothing.

    Returns:
        Thresholds with the calibration; ``no_thresholds`` where there is no known positive at all.
    """
    n_classes = labels.shape[1]
    positives = (labels & known).sum(axis=0)
    if not positives.any():
        return no_thresholds(n_classes)
    calibration = fit_calibration(labels, known, scores, prior)
    borrowed = positives < min_positives
    pool, probabilities = known, calibrate(calibration, scores)
    name, _, number = objective.partition(">=")
    promised = True
    if name == "recall":
        if groups is not None and not _can_promise(number, _units(labels & known, groups)):
            groups, promised = None, False
        units = np.array([_units(column, groups) for column in (labels & known).T])
        borrowed |= ~_can_promise(number, units)
        if _can_promise(number, _units(labels & known & borrowed, groups)):
            pool, probabilities = known & borrowed, cross_calibrate(calibration, labels, known, scores, prior, groups)
    of_row = groups if groups is None else np.broadcast_to(groups[:, None], labels.shape)
    pooled = choose_cut(labels[pool], probabilities[pool], objective, of_row if of_row is None else of_row[pool])
    threshold = uncalibrate(calibration, pooled.threshold).astype(np.float32)
    reached = np.full(n_classes, pooled.reached)
    for c in np.flatnonzero(~borrowed):
        rows = known[:, c]
        cut = choose_cut(labels[rows, c], scores[rows, c], objective, groups if groups is None else groups[rows])
        threshold[c], reached[c] = cut.threshold, cut.reached
    reached &= promised & ((positives > 0) | (name == "f1"))  # no promise rests on a class without positives
    counts = count(labels, scores >= threshold, np.ones((len(labels), 1)), known)
    return Thresholds(
        threshold,
        borrowed,
        reached,
        positives,
        precision(counts)[:, 0],
        recall(counts)[:, 0],
        pooled.threshold,
        calibration,
    )


def _units(labels: Bools, groups: NDArray[np.int64] | None) -> int:
    """How many positives of labels [image] or [image, class] a promise counts: groups that have one, where there are
    groups.
    """
    if groups is None:
        return int(labels.sum())
    return len(np.unique(groups[labels.reshape(len(labels), -1).any(axis=1)]))


def no_thresholds(n_classes: int) -> Thresholds:
    """0.5 for every class, marked as borrowed: there were no rows to choose on."""
    nothing = np.full(n_classes, np.nan)
    cuts, marks = np.full(n_classes, CUT, dtype=np.float32), np.ones(n_classes, dtype=bool)
    return Thresholds(
        cuts,
        marks,
        ~marks,
        np.zeros(n_classes, dtype=np.int64),
        nothing,
        nothing,
        CUT,
        Calibration(np.ones(n_classes), np.zeros(n_classes)),
    )


def thresholds_document(
    thresholds: Thresholds, classes: Classes, objective: str, views: Mapping[str, Any], source: str
) -> dict[str, Any]:
    """The content of thresholds.json.

    Args:
        thresholds: of the variant capnet.
        classes: in the order of the thresholds.
        objective: that they were chosen for.
        views: section tte: the test-time views that they hold for.
        source: the rows they were chosen on: val, out_of_fold or none.

    Returns:
        JSON content; null where precision or recall does not exist.
    """
    entries = []
    for c, name in enumerate(classes.names):
        entries.append(
            {
                "name": name,
                "threshold": float(thresholds.threshold[c]),
                "borrowed": bool(thresholds.borrowed[c]),
                "reached": bool(thresholds.reached[c]),
                "positives": int(thresholds.positives[c]),
                "precision": _number(thresholds.precision[c]),
                "recall": _number(thresholds.recall[c]),
            }
        )
    return {
        "schema": SCHEMA,
        "class_fingerprint": classes.fingerprint,
        "variant": "capnet",
        "objective": objective,
        "views": dict(views),
        "source": source,
        "pooled_probability": thresholds.pooled_probability,
        "classes": entries,
        "calibration": {
            "temperature": [float(value) for value in thresholds.calibration.temperature],
            "shift": [float(value) for value in thresholds.calibration.shift],
        },
    }


def read_thresholds(path: Path) -> dict[str, Any]:
    """What ``thresholds_json`` gave, from its file.

    Args:
        path: thresholds.json.

    Raises:
        ContractError: the file is missing, damaged or of another schema.
    """
    content: dict[str, Any] = read_json(path)
    check_schema(content, path)
    with reading(path):
        names, (limits, calibration) = [str(item["name"]) for item in content["classes"]], limits_of(content)
        numbers = np.stack([limits, calibration.temperature, calibration.shift])
        if numbers.shape != (3, len(names)) or not np.isfinite(numbers).all() or not content["class_fingerprint"]:
            raise ValueError(f"{numbers.shape[1]} thresholds and calibrations of {len(names)} classes")
    return content


def limits_of(content: Mapping[str, Any]) -> tuple[NDArray[np.float32], Calibration]:
    """Thresholds [class], in the unit of scores, and the calibration in the content of thresholds.json."""
    limits = np.array([float(item["threshold"]) for item in content["classes"]], dtype=np.float32)
    fitted = content["calibration"]
    return limits, Calibration(*(np.array(fitted[name], dtype=np.float64) for name in ("temperature", "shift")))


def other_views(thresholds: Mapping[str, Any], config: Mapping[str, Any], path: Path) -> list[Problem]:
    """A problem where the thresholds at ``path`` were chosen for other test-time views than those of a config.json."""
    views, scored = thresholds.get("views"), config.get("tte")
    what = f"thresholds hold for the test-time views {views}, the model is scored with {scored}"
    todo = "run `capnet evaluate` again: other views need other thresholds"
    return [] if views == scored else [Problem(what, str(path), todo)]


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
