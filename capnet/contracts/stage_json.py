"""What stages evaluate, train and validate write as JSON, and what registered models bring along."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from capnet.contracts import forms
from capnet.contracts.files import check_schema, read_json, reading

_MEANS = forms.under_any_name(forms.number)
_VARIANTS = forms.under_any_name(_MEANS)
_GAIN = forms.parts(gain=forms.number, low=forms.or_null(forms.number), high=forms.or_null(forms.number))
EVALUATION = forms.parts(
    capnet=_MEANS,
    single_view=_MEANS,
    zero_shot=_MEANS,
    zero_shot_single_view=_MEANS,
    linear_probe=_MEANS,
    differences=_VARIANTS,
    slices=forms.under_any_name(_VARIANTS),
    slice_info=forms.under_any_name(
        forms.parts(test_rows=forms.count, left_out=forms.each(forms.text), differences=_VARIANTS)
    ),
    left_out=forms.each(forms.text),
    test_rows=forms.count,
    val_rows=forms.count,
)
MODEL_CONFIG = forms.parts(
    backbone=forms.parts(name=forms.text, pretrained=forms.text),
    blend=forms.parts(
        weights=forms.under_any_name(forms.share), chosen_on=forms.text, gains=forms.under_any_name(_GAIN)
    ),
    class_fingerprint=forms.text,
    weight_hash=forms.text,
    selected_epoch=forms.count,
    validation_rows=forms.count,
    validation_extra_labels=forms.flag,
    refit_rows=forms.count,
    trained_parameters=forms.count,
)
FINDINGS = forms.parts({"checks": forms.each(forms.parts({"name": forms.text, "success": forms.flag}))})


def read_evaluation(folder: Path) -> dict[str, Any]:
    """Everything that stage evaluate measured: evaluation.json of its output folder.

    Args:
        folder: what `capnet evaluate` wrote.

    Returns:
        Means by variant (fractions of 1), their differences, slices, calibration, and how all that was measured.

    Raises:
        ContractError: The file is missing, damaged or of another schema.
    """
    return _read(folder / "evaluation.json", EVALUATION)


def read_model_config(folder: Path) -> dict[str, Any]:
    """How a model was trained: config.json of its folder; raises ContractError as ``read_evaluation``."""
    return _read(folder / "config.json", MODEL_CONFIG)


def read_findings(folder: Path) -> dict[str, Any]:
    """What stage validate found: validation.json of its folder; raises ContractError as ``read_evaluation``."""
    return _read(folder / "validation.json", FINDINGS)


def _read(path: Path, form: forms.Form) -> dict[str, Any]:
    content: dict[str, Any] = read_json(path)
    check_schema(content, path)
    with reading(path):
        forms.check(content, form)
    return content
