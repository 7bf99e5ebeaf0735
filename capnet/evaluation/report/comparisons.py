"""The parts of the report that compare: CapNet with zero-shot, all views with one, and parts of the test images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from capnet.contracts import BUCKETS
from capnet.errors import counted
from capnet.evaluation.report import charts
from capnet.evaluation.report.charts import LONG_NAME, MARKER_BUCKETS, Part, Series, share_axis
from capnet.evaluation.report.inputs import Inputs
from capnet.evaluation.report.intervals import FEW_GROUPS, is_grouped
from capnet.evaluation.report.words import MEANS, VARIANT_NAMES, difference, percent, shorten, whole

MOVERS = 8  # classes with the largest gains, and as many with the smallest


def against_zero_shot(inputs: Inputs) -> Part:
    """Zero-shot against CapNet: a point a class, and the classes that moved most."""
    frame = inputs.per_class.dropna(subset=["ap", "ap_zero_shot"])
    if frame.empty:
        return {}
    series, radius = [], 3.6 if len(frame) <= 200 else 2.4
    for bucket in BUCKETS:
        part = frame[frame["bucket"] == bucket]
        titles = [
            f"{shorten(row['class'], LONG_NAME)}: {percent(row['ap_zero_shot'])} to {percent(row['ap'])}"
            for row in part.to_dict("records")
        ]
        x, y = (part[name].tolist() for name in ("ap_zero_shot", "ap"))
        series.append(Series(x, y, bucket, MARKER_BUCKETS[bucket], titles, radius))
    gains = frame.assign(gain=frame["ap"] - frame["ap_zero_shot"]).sort_values("gain", ascending=False, kind="stable")
    better, worse = int((gains["gain"] > 0).sum()), int((gains["gain"] < 0).sum())
    groups = {"Every class, largest gain first": gains}
    if len(gains) > 2 * MOVERS:
        groups = {"Largest gains": gains.head(MOVERS), "Smallest gains and losses": gains.tail(MOVERS)}
    chart = charts.chart(
        share_axis("zero-shot AP, %"),
        share_axis("CapNet AP, %"),
        series,
        "Zero-shot against CapNet, one point a class; above the diagonal CapNet is better",
        diagonal=True,
    )
    listed = {title: part.to_dict("records") for title, part in groups.items()}
    return {"chart": chart, "better": better, "worse": worse, "equal": len(gains) - better - worse, "groups": listed}


def ensembling(inputs: Inputs) -> list[Part]:
    """With test-time ensembling minus without: CapNet and zero-shot, every mean."""
    tables: dict[str, list[Part]] = {}
    for many, one in (("capnet", "single_view"), ("zero_shot", "zero_shot_single_view")):
        paired = inputs.metrics.get("differences", {}).get(f"{many}-{one}", {})
        tables[many] = [
            {
                "title": MEANS[name],
                "all_views": percent(inputs.metrics[many].get(name)),
                "one_view": percent(inputs.metrics[one].get(name)),
                **difference(paired, name),
            }
            for name in MEANS
            if name in paired
        ]
    ends = [abs(row[key]) for rows in tables.values() for row in rows for key in ("value", "low", "high")]
    extent = max((end for end in ends if not math.isnan(end)), default=0.0) or 0.01
    return [{"title": VARIANT_NAMES[many], "rows": rows, "extent": extent} for many, rows in tables.items() if rows]


def slices(inputs: Inputs) -> Part:
    """mAP and tail of every slice of the test images, with the paired difference to zero-shot."""
    measured: Mapping[str, Any] = inputs.metrics.get("slices", {})
    rows, sure = [], []
    for name, about in sorted(inputs.metrics.get("slice_info", {}).items()):
        figures = measured.get(name, {})
        capnet = figures.get("capnet", {})
        means = {mean: MEANS[mean] for mean in ("mAP", "tail") if mean in capnet}
        sure += [f"{mean}_low" in capnet for mean in means]
        rows.append(
            {
                "name": name,
                "pictures": _pictures(about, is_grouped(inputs.metrics)),
                "classes": len(inputs.classes) - len(about.get("left_out", ())),
                "means": means or {"": "no class with a positive and a negative"},
                "figures": figures,
                "gains": about.get("differences", {}).get("capnet-zero_shot", {}),
            }
        )
    variants = ("capnet", "single_view", "zero_shot", "linear_probe")
    known = [variant for variant in variants if any(variant in item for item in measured.values())]
    titles = [*(VARIANT_NAMES[variant] for variant in known), "CapNet minus zero-shot"]
    intervals = "95 % intervals" if all(sure) else "95 % intervals, where a slice is not of one group"
    units = [about.get("units", FEW_GROUPS) for about in inputs.metrics.get("slice_info", {}).values()]
    if is_grouped(inputs.metrics) and any(2 <= number < FEW_GROUPS for number in units):
        intervals += f"; those of fewer than {FEW_GROUPS} groups can be too narrow"
    return {"rows": rows, "variants": known, "titles": titles, "intervals": intervals} if rows else {}


def _pictures(about: Mapping[str, Any], grouped: bool) -> str:
    """How many test images a slice has, and of how many groups where these are what is drawn."""
    groups = f" of {counted(int(about['units']), 'group')}" if grouped and "units" in about else ""
    return whole(about.get("test_rows")) + groups
