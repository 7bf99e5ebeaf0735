"""The parts of the report that compare: CapNet with zero-shot, all views with one, and parts of the test images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from capnet.contracts import BUCKETS
from capnet.evaluation.report import charts
from capnet.evaluation.report.cells import difference_cell, pair_cell
from capnet.evaluation.report.charts import MARKER_BUCKETS, Series, share_axis
from capnet.evaluation.report.inputs import Inputs
from capnet.evaluation.report.words import (
    MEANS,
    VARIANT_NAMES,
    difference,
    fixed,
    interval,
    percent,
    shorten,
    whole,
)

MOVERS = 8  # classes with the largest gains, and as many with the smallest
LONG_NAME = 40  # characters of a name in a tooltip
Part = dict[str, Any]


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

    def listed(part: pd.DataFrame) -> list[dict[Any, Any]]:
        return [{**row, "pair": pair_cell(row["ap_zero_shot"], row["ap"])} for row in part.to_dict("records")]

    groups = (
        [{"title": "Every class, largest gain first", "rows": listed(gains)}]
        if len(gains) <= 2 * MOVERS
        else [
            {"title": "Largest gains", "rows": listed(gains.head(MOVERS))},
            {"title": "Smallest gains and losses", "rows": listed(gains.tail(MOVERS))},
        ]
    )
    chart = charts.chart(
        share_axis("zero-shot AP, %"),
        share_axis("CapNet AP, %"),
        series,
        "Zero-shot against CapNet, one point a class; above the diagonal CapNet is better",
        diagonal=True,
    )
    return {"chart": chart, "better": better, "worse": worse, "equal": len(gains) - better - worse, "groups": groups}


def ensembling(inputs: Inputs) -> list[Part]:
    """With test-time ensembling minus without: CapNet and zero-shot, every mean."""
    tables: dict[str, dict[str, Part]] = {}
    for many, one in (("capnet", "single_view"), ("zero_shot", "zero_shot_single_view")):
        first, second = inputs.metrics.get(many, {}), inputs.metrics.get(one, {})
        paired = inputs.metrics.get("differences", {}).get(f"{many}-{one}", {})
        shared = [name for name in MEANS if name in first and name in second]
        if shared:
            tables[many] = {
                name: {
                    "title": MEANS[name],
                    "all_views": percent(first[name]),
                    "one_view": percent(second[name]),
                    **difference(paired if name in paired else {name: first[name] - second[name]}, name),
                }
                for name in shared
            }
    rows = [row for table in tables.values() for row in table.values()]
    ends = [abs(row[key]) for row in rows for key in ("value", "low", "high") if not math.isnan(row[key])]
    extent = max(ends, default=0.0) or 0.01
    for row in rows:
        row["cell"] = difference_cell(row["value"], row["low"], row["high"], extent)
    return [
        {"title": VARIANT_NAMES[many], "rows": list(table.values()), "extent": fixed(100 * extent)}
        for many, table in tables.items()
    ]


def slices(inputs: Inputs) -> Part:
    """mAP and tail of every slice of the test pictures, with the paired difference to zero-shot."""
    measured: Mapping[str, Any] = inputs.metrics.get("slices", {})
    variants = [
        variant
        for variant in ("capnet", "single_view", "zero_shot", "linear_probe")
        if any(variant in item for item in measured.values())
    ]
    rows = []
    for name in sorted(measured):
        about = inputs.metrics.get("slice_info", {}).get(name, {})
        paired = about.get("differences", {}).get("capnet-zero_shot", {})
        lines = []
        for mean in ("mAP", "tail"):
            if mean in measured[name].get("capnet", {}):
                figures = [measured[name].get(variant, {}) for variant in variants]
                cells = [{"text": percent(values.get(mean)), "interval": interval(values, mean)} for values in figures]
                lines.append({"title": MEANS[mean], "cells": [*cells, difference(paired, mean)]})
        classes = len(inputs.classes) - len(about.get("left_out", ()))
        if lines:
            pictures = whole(about.get("test_rows"))
            rows.append({"name": name, "pictures": pictures, "classes": classes, "lines": lines})
    if not rows:
        return {}
    return {"rows": rows, "columns": [*(VARIANT_NAMES[item] for item in variants), "CapNet minus zero-shot"]}
