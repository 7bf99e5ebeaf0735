"""The few figures of an evaluation that people compare: metrics.json, MLflow's run page, what the stage returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from capnet.contracts import BUCKETS

HEADLINE = ("mAP", *BUCKETS)
BASELINES = ("zero_shot", "linear_probe")  # what a user has without this product
# nine columns with four decimals: `dvc metrics show` fits into a terminal of 120 characters
COMPARED = ("mAP", "mAP_low", "mAP_high", "head", "medium", "tail", "tail_low", "tail_high", "gain")


def headline_means(evaluation: Mapping[str, Any], variant: str = "capnet") -> dict[str, float]:
    """mAP, head, medium and tail of one variant as fractions of 1; what was not measured is left out."""
    values = evaluation.get(variant, {})
    return {name: float(values[name]) for name in HEADLINE if name in values}


def headline_figures(evaluation: Mapping[str, Any]) -> dict[str, float]:
    """The figures that belong on top of a run's page.

    Args:
        evaluation: the content of evaluation.json.

    Returns:
        Fractions of 1 by name: ``mAP``, ``head``, ``medium``, ``tail`` of CapNet; ``mAP_low``, ``mAP_high``,
        ``tail_low``, ``tail_high``, the bounds of 95 % intervals; ``CF1``, ``OF1`` at the chosen thresholds; ``gain``,
        the mAP above zero-shot, with its bounds. What was not measured is left out.
    """
    capnet = evaluation["capnet"]
    sources = {name: (capnet, name) for name in (*HEADLINE, "mAP_low", "mAP_high", "tail_low", "tail_high")}
    sources |= {name: (capnet, f"{name}_chosen") for name in ("CF1", "OF1")}
    gains = evaluation.get("differences", {}).get("capnet-zero_shot", {})
    sources |= {f"gain{end}": (gains, f"mAP{end}") for end in ("", "_low", "_high")}
    return {name: float(values[key]) for name, (values, key) in sources.items() if key in values}


def compared_figures(evaluation: Mapping[str, Any]) -> dict[str, float]:
    """The content of metrics.json: the headline figures that fit into one line, rounded to four decimals."""
    figures = headline_figures(evaluation)
    return {name: round(figures[name], 4) for name in COMPARED if name in figures}


def stage_figures(evaluation: Mapping[str, Any]) -> dict[str, float]:
    """What stage evaluate returns: the means of CapNet, and the mAP of zero-shot and of the linear probe."""
    baselines = {f"{name}_mAP": evaluation[name]["mAP"] for name in BASELINES if "mAP" in evaluation.get(name, {})}
    return headline_means(evaluation) | baselines
