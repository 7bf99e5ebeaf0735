"""The report's curves over the test images: precision over recall, and reliability before and after calibration, per
bucket.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capnet.contracts import BUCKETS
from capnet.evaluation.curves import pr_curve
from capnet.evaluation.metrics import Bools, Floats, measurable
from capnet.evaluation.report import charts
from capnet.evaluation.report.charts import MARKER_BUCKETS, Series, share_axis
from capnet.evaluation.report.inputs import Inputs
from capnet.evaluation.report.words import MEANS, percent, significant

RECALLS = np.linspace(0.01, 1.0, 100)
WORKING = (50, 80, 95)  # recalls in percent whose precision is also given as a number
FEW = 20  # a reliability point of fewer decisions is drawn pale: its share is mostly chance


def mean_precision(labels: Bools, known: Bools, scores: Floats, members: Bools) -> NDArray[np.float64]:
    """Mean over some classes of the precision at the highest cut that reaches each of RECALLS.

    Not interpolated, so the area under it is the bucket's mAP.

    Args:
        labels, known: bool [image, class].
        scores: [image, class].
        members: bool [class], the classes of the mean.

    Returns:
        float64 [recall]; empty where no class has positives and negatives.
    """
    curves = []
    for column in np.flatnonzero(members & measurable(labels, known)):
        rows = known[:, column]
        recall, precision = pr_curve(labels[rows, column], scores[rows, column])
        curves.append(precision[np.searchsorted(recall, RECALLS - 1e-9)])
    return np.mean(curves, axis=0) if curves else np.empty(0)


def precision_recall(inputs: Inputs) -> dict[str, Any]:
    """One mean precision-recall curve a bucket."""
    series, legend, rows = [], [], []
    buckets = np.array(inputs.classes.buckets)
    for bucket in BUCKETS:
        curve = mean_precision(inputs.test.labels, inputs.test.known, inputs.scores, buckets == bucket)
        if len(curve):
            series.append(Series(RECALLS.tolist(), curve.tolist(), bucket))
            area = percent(inputs.metrics.get("capnet", {}).get(bucket))
            legend.append({"bucket": bucket, "text": f"{MEANS[bucket]}, area {area}"})
            reached = np.searchsorted(RECALLS, np.array(WORKING) / 100 - 1e-9)
            rows.append({"bucket": bucket, "cells": [percent(float(value)) for value in curve[reached]]})
    if not series:
        return {}
    chart = charts.chart(
        share_axis("recall, %"),
        share_axis("precision, %"),
        series,
        "Precision over recall, mean over the classes of each bucket",
    )
    return {"chart": chart, "legend": legend, "rows": rows, "recalls": [f"{recall} %" for recall in WORKING]}


def reliability_charts(inputs: Inputs) -> list[dict[str, Any]]:
    """Predicted against observed share of the test decisions of each bucket, raw scores and calibrated ones, with Brier
    scores.
    """
    measured = inputs.metrics.get("calibration", {}).get("buckets", {})
    result = []
    for bucket in BUCKETS:
        if bucket not in measured:
            continue
        series = []
        for key, css_class in (("raw", "before"), ("calibrated", "after")):
            bins = measured[bucket][key]
            series.append(_series(bins, f"{bucket} {css_class}"))
            for few in (False, True):
                chosen = [item for item in bins if (item["count"] < FEW) == few]
                titles = [
                    f"{percent(item['mean'])} % predicted, {percent(item['observed'])} % observed, {item['count']:,}"
                    " decisions"
                    for item in chosen
                ]
                style = f"{bucket} {css_class}{' few' if few else ''}"
                series.append(_series(chosen, style, MARKER_BUCKETS[bucket], titles))
        label = f"{MEANS[bucket]}: predicted against observed share, before and after calibration"
        chart = charts.chart(
            share_axis("predicted probability, %"), share_axis("observed share, %"), series, label, diagonal=True
        )
        brier = {key: significant(measured[bucket].get(key)) for key in ("brier_raw", "brier_calibrated")}
        result.append({"bucket": bucket, "chart": chart, **brier})
    return result


def _series(
    bins: Sequence[Mapping[str, float]], css_class: str, kind: str = "line", titles: Sequence[str] = ()
) -> Series:
    return Series([item["mean"] for item in bins], [item["observed"] for item in bins], css_class, kind, titles)
