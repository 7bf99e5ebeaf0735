"""What stages evaluate, train and validate write as JSON, and what registered models bring along."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Required

from typing_extensions import TypedDict

from capnet.contracts.files import read_document, reading
from capnet.contracts.forms import Count, Number, Share, check

Means = dict[str, Number]
Variants = dict[str, Means]


class Slice(TypedDict, total=False):
    """Images of one slice."""

    test_rows: Count
    units: Count
    left_out: list[str]  # classes without a positive or without a negative
    differences: Variants


class ChosenThresholds(TypedDict, total=False):
    """What thresholds were chosen for, and what they do not reach."""

    objective: str
    critical_objective: str
    notes: list[str]


class Evaluation(TypedDict, total=False):
    """evaluation.json. Means are fractions of 1, by variant and name."""

    capnet: Means
    single_view: Means
    zero_shot: Means
    zero_shot_single_view: Means
    linear_probe: Means
    differences: Variants
    slices: dict[str, Variants]
    slice_info: dict[str, Slice]
    left_out: list[str]  # classes without a positive or without a negative
    threshold: ChosenThresholds
    decisions: dict[str, Means]
    test_rows: Count
    val_rows: Count
    model_md5: str  # DVC's, of the model's folder
    split_md5: str  # DVC's, of the split's folder


class Gain(TypedDict, total=False):
    """What a blend gains over one member, with its interval."""

    gain: Number
    low: Number | None
    high: Number | None


class Blend(TypedDict, total=False):
    """How the scores of members are weighted in what is served."""

    weights: dict[str, Share]
    chosen_on: str
    gains: dict[str, Gain]


class Backbone(TypedDict, total=False):
    """Which towers, as in the section ``backbone`` of the settings."""

    name: str
    pretrained: str


class ModelConfig(TypedDict, total=False):
    """config.json of a model, without the sections of the settings, which ``capnet.config`` reads."""

    backbone: Backbone
    blend: Blend
    class_fingerprint: str
    weight_hash: str
    fitted_rows: str
    selected_epoch: Count
    validation_rows: Count
    validation_extra_labels: bool
    refit_rows: Count
    trained_parameters: Count


class Check(TypedDict, total=False):
    """One check of the data."""

    name: Required[str]
    success: Required[bool]
    severity: str


class Findings(TypedDict, total=False):
    """validation.json: all checks of the data."""

    checks: Required[list[Check]]
    success: bool  # no critical one failed
    split_md5: str  # DVC's, of the split's folder


def read_evaluation(folder: Path) -> dict[str, Any]:
    """Everything that stage evaluate measured: evaluation.json of its output folder.

    Args:
        folder: what `capnet evaluate` wrote.

    Returns:
        Means by variant (fractions of 1), their differences, slices, calibration, and how all that was measured.

    Raises:
        ContractError: the file is missing, damaged or of another schema.
    """
    return _read(folder / "evaluation.json", Evaluation)


def read_model_config(folder: Path) -> dict[str, Any]:
    """How a model was trained: config.json of its folder; raises ContractError as ``read_evaluation``."""
    return _read(folder / "config.json", ModelConfig)


def read_findings(folder: Path) -> dict[str, Any]:
    """What stage validate found: validation.json of its folder; raises ContractError as ``read_evaluation``."""
    return _read(folder / "validation.json", Findings)


def _read(path: Path, form: Any) -> dict[str, Any]:
    content = read_document(path)
    with reading(path):
        check(form, content)
    return content
