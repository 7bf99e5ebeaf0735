"""Whether thresholds keep on the test images what was asked of them: the report's table of decisions, and sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from capnet.contracts import BUCKETS
from capnet.evaluation.report.choices import were_chosen
from capnet.evaluation.report.words import MEANS, as_float, exact_percent, interval, percent, percent_near, whole

TITLES = {
    "all": MEANS["mAP"],
    **{bucket: MEANS[bucket] for bucket in BUCKETS},
    "critical": "Critical classes",
    "not_critical": "Other classes",
}


def decisions(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Recall and precision on the test images by bucket and of critical classes, ready to show.

    Args:
        metrics: the content of evaluation.json.
    """
    measured, rows = metrics.get("decisions", {}), []
    for name, title in TITLES.items():
        if rates := measured.get(name):
            shares = {
                key: {"text": percent(rates.get(key)), "interval": interval(rates, key)}
                for key in ("recall", "precision")
            }
            rows.append(
                {"title": title, "true": whole(rates["true"]), "predicted": whole(rates["predicted"]), **shares}
            )
    return rows


def promises(metrics: Mapping[str, Any]) -> list[str]:
    """What the test images say about each recall or precision that was asked for, and what it costs, in sentences.

    Args:
        metrics: the content of evaluation.json.
    """
    chosen, measured = metrics.get("threshold", {}), metrics.get("decisions", {})
    if not were_chosen(chosen):
        return []
    asked = {"all": chosen.get("objective", "f1")}
    if "critical_objective" in chosen and "critical" in measured:
        asked = {"critical": chosen["critical_objective"], "not_critical": asked["all"]}
    sentences = []
    for name, objective in asked.items():
        kind, _, share = str(objective).partition(">=")
        rates = measured.get(name, {})
        if not share:
            continue
        whose = "" if name == "all" else f" of {TITLES[name].lower()}"
        asked_for = f"Asked for: {kind}{whose} of at least {exact_percent(float(share))} %."
        if kind == "precision" and rates.get("predicted") == 0:
            sentences.append(f"{asked_for} No label was given on the test pictures.")
        elif kind in rates:
            other = "precision" if kind == "recall" else "recall"
            cost = f"; {other} {percent(rates[other])} %" if other in rates else ""
            kept = f"{percent_near(rates[kind], float(share))} %{_kept(rates, kind, float(share))}{cost}"
            sentences.append(f"{asked_for} On the test pictures: {kept}.")
    return sentences


def _kept(rates: Mapping[str, Any], kind: str, share: float) -> str:
    """The interval and what it shows; nothing where there is none."""
    low, high = as_float(rates.get(f"{kind}_low")), as_float(rates.get(f"{kind}_high"))
    if math.isnan(low) or math.isnan(high):
        return ""
    span = f"{percent_near(low, share)} to {percent_near(high, share)}"
    if high < share:
        return f" ({span}), less than that"
    if low >= share:
        return f" ({span}), which keeps it"
    return f" ({span}), which shows neither that it is kept nor that it is missed"
