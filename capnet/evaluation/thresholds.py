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
from numpy.typing import NDArray

from capnet.contracts import SCHEMA, Classes, check_schema, read_json, reading
from capnet.errors import Problem
from capnet.evaluation.calibration import Calibration, calibrate, cross_calibrate, fit_calibration, uncalibrate
from capnet.evaluation.cuts import Cut, can_promise, choose_cut
from capnet.evaluation.metrics import CUT, Bools, Floats, count, precision, recall


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

    A class with too few positives, or without a cut of its own that reaches the objective, borrows: one cut is chosen
    on calibrated probabilities over the entries of several classes together, and mapped back to the class's own score.
    For a recall or a precision these are the classes that borrow, because a promise over all classes is kept by the
    frequent ones (class-conditional conformal prediction by clusters: Ding et al., NeurIPS 2023), and their
    probabilities are by calibrations that have not seen the row; for F1, and where those classes have too few positives
    together, all classes.

    Args:
        labels, known: bool [image, class].
        scores: float32 [image, class] in [0, 1].
        objective: as in ``choose_cut``.
        min_positives: known positives below which a class borrows; also one whose own rows do not reach the objective.
        prior: as in ``fit_calibration``.
        groups: int [image], as in ``choose_cut``. With too few groups for a promise about other groups, each positive
            counts for itself and no class is ``reached``. Nor is a class without positives, except for f1, which
            promises nothing.

    Returns:
        Thresholds with the calibration; ``no_thresholds`` where there is no known positive at all.
    """
    n_classes = labels.shape[1]
    positives = (labels & known).sum(axis=0)
    if not positives.any():
        return no_thresholds(n_classes)
    calibration = fit_calibration(labels, known, scores, prior)
    name, _, number = objective.partition(">=")
    promised = name == "f1" or groups is None or bool(can_promise(number, _units(labels & known, groups)))
    groups = groups if promised else None
    own: dict[int, Cut] = {}
    for c in np.flatnonzero(positives >= min_positives).tolist():
        rows = known[:, c]
        cut = choose_cut(labels[rows, c], scores[rows, c], objective, groups if groups is None else groups[rows])
        own |= {c: cut} if cut.reached else {}
    borrowed = np.array([c not in own for c in range(n_classes)])
    pool, probabilities = known, calibrate(calibration, scores)
    if name != "f1" and can_promise(number, _units(labels & known & borrowed, groups)):
        pool, probabilities = known & borrowed, cross_calibrate(calibration, labels, known, scores, prior, groups)
    of_row = groups if groups is None else np.broadcast_to(groups[:, None], labels.shape)
    pooled = choose_cut(labels[pool], probabilities[pool], objective, of_row if of_row is None else of_row[pool])
    threshold = uncalibrate(calibration, pooled.threshold).astype(np.float32)
    reached = np.full(n_classes, pooled.reached)
    for c, cut in own.items():
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
