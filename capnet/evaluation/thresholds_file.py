"""thresholds.json: what it says of the thresholds and the calibration of every class, written and read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Required

import numpy as np
from numpy.typing import NDArray
from typing_extensions import TypedDict

from capnet.config.results import Threshold
from capnet.contracts import SCHEMA, Classes, read_document, reading
from capnet.contracts.forms import Count, Number, Positive, Share, Text, check
from capnet.errors import ContractError, Problem
from capnet.evaluation.calibration import Calibration
from capnet.evaluation.thresholds import Thresholds


def thresholds_document(
    thresholds: Thresholds,
    classes: Classes,
    settings: Threshold,
    views: Mapping[str, Any],
    source: str,
) -> dict[str, Any]:
    """The content of thresholds.json.

    Args:
        thresholds: of the variant capnet.
        classes: in the order of the thresholds.
        settings: with the objectives that they were chosen for.
        views: section tte: the test-time views that they hold for.
        source: the rows they were chosen on: val, out_of_fold or none.

    Returns:
        JSON content; null where precision or recall does not exist.
    """
    entries = []
    for c, item in enumerate(classes.items):
        own = {"objective": settings.critical_objective} if item.critical and settings.critical_objective else {}
        entries.append(
            {
                "name": item.name,
                **own,
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
        "objective": settings.objective,
        **({"critical_objective": settings.critical_objective} if settings.critical_objective else {}),
        "views": dict(views),
        "source": source,
        "classes": entries,
        "calibration": {
            "temperature": thresholds.calibration.temperature.tolist(),
            "shift": thresholds.calibration.shift.tolist(),
        },
    }


class ClassThreshold(TypedDict, total=False):
    """Of one class; precision and recall are those of the rows it was chosen on."""

    name: Required[str]
    objective: str  # of a critical class, where it has one of its own
    threshold: Required[Share]
    borrowed: bool
    reached: bool
    positives: Count
    precision: Share | None
    recall: Share | None


class ClassCalibration(TypedDict, total=False):
    """By class."""

    temperature: Required[list[Positive]]
    shift: Required[list[Number]]


class ThresholdsFile(TypedDict, total=False):
    """thresholds.json, without what other readers compare."""

    class_fingerprint: Required[Text]
    classes: Required[list[ClassThreshold]]
    calibration: Required[ClassCalibration]
    objective: str
    critical_objective: str
    source: str


def read_thresholds(path: Path, classes: Classes | None = None) -> dict[str, Any]:
    """What ``thresholds_document`` gave, from its file.

    Args:
        path: thresholds.json.
        classes: that it must have been made for; None: any.

    Raises:
        ContractError: the file is missing, damaged, of another schema or made for other classes.
    """
    content = read_document(path)
    with reading(path):
        content["calibration"] = Calibration.by_class(content["calibration"])
        check(ThresholdsFile, content)
        number = len(content["classes"])
        if any(len(content["calibration"][name]) != number for name in ("temperature", "shift")):
            raise ValueError(f"{number} classes need as many temperatures and shifts")
    if classes is not None and not made_for(content, classes):
        raise ContractError("made for other classes", str(path), "run `dvc repro`: all stages must see one class list")
    return content


def made_for(thresholds: Mapping[str, Any], classes: Classes) -> bool:
    """Do the thresholds of ``read_thresholds`` stand in the order of these classes?"""
    names = [item["name"] for item in thresholds["classes"]]
    return thresholds["class_fingerprint"] == classes.fingerprint and names == classes.names


def thresholds_and_calibration(content: Mapping[str, Any]) -> tuple[NDArray[np.float32], Calibration]:
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
