"""The parts of the report as plain values for the template: what to show and in which words."""

from __future__ import annotations

import math
from collections.abc import Mapping

from capnet.contracts import VARIANTS
from capnet.errors import counted
from capnet.evaluation.bootstrap import MIN_POSITIVES
from capnet.evaluation.report import charts
from capnet.evaluation.report.cells import bar_cell
from capnet.evaluation.report.charts import Part, Series, finite, share_axis
from capnet.evaluation.report.choices import blend_in_words, borrowers, were_chosen
from capnet.evaluation.report.inputs import Inputs, shown_rows
from capnet.evaluation.report.intervals import group_notes, is_grouped, is_of_one_group
from capnet.evaluation.report.words import MEANS, as_float, difference, interval, percent, whole
from capnet.model.backbones import find_backbone

ALL_MEANS = MEANS | {
    "mAP": "mAP",
    "CF1": "CF1 at 0.5",
    "OF1": "OF1 at 0.5",
    "CF1_chosen": "CF1, chosen thresholds",
    "OF1_chosen": "OF1, chosen thresholds",
}


# ---------------------------------------------------------------- summary


def summary_cards(inputs: Inputs) -> list[Part]:
    """mAP, head, medium and tail of CapNet with the differences to zero-shot and to the linear probe."""
    capnet, differences = inputs.metrics.get("capnet", {}), inputs.metrics.get("differences", {})
    left_out = set(inputs.metrics.get("left_out", ()))
    cards = []
    for name, title in MEANS.items():
        members = [item for item in inputs.classes.items if name in ("mAP", item.bucket)]
        if not members:
            continue
        measured = [item for item in members if item.name not in left_out]
        counts = [item.train_count for item in members]
        span = counted(max(counts), "training picture")
        if min(counts) < max(counts):
            span = f"{min(counts):,} to {span}"
        comparisons = [
            {"against": words, **difference(differences[key], name)}
            for key, words in (
                ("capnet-zero_shot", "against zero-shot"),
                ("capnet-linear_probe", "against the linear probe"),
            )
            if key in differences
        ]
        cards.append(
            {
                "name": name,
                "title": title,
                "value": percent(capnet.get(name)),
                "interval": interval(capnet, name),
                "classes": (
                    counted(len(measured), "class", "classes")
                    + (f" of {len(members)}" if len(measured) < len(members) else "")
                ),
                "span": span + (" each" if len(members) > 1 else ""),
                "comparisons": [item for item in comparisons if not math.isnan(item["value"])],
                "bar": bar_cell(*(as_float(capnet.get(key)) for key in (name, f"{name}_low", f"{name}_high"))),
            }
        )
    return cards


def verdict(inputs: Inputs) -> list[str]:
    """The result in sentences."""
    capnet, differences = inputs.metrics.get("capnet", {}), inputs.metrics.get("differences", {})
    span = interval(capnet, "mAP")
    sentences = [
        f"CapNet reaches a mean average precision of {percent(capnet.get('mAP'))} %"
        + (f" (95 % interval {span})." if span else ".")
    ]
    for key, other in (
        ("capnet-zero_shot", "the same backbone without training (zero-shot)"),
        ("capnet-linear_probe", "a linear probe on the backbone's pooled features"),
    ):
        if key not in differences:
            continue
        parts = []
        for name, where in (("mAP", "over all classes"), ("tail", "in the tail")):
            gain = difference(differences[key], name)
            if not math.isnan(gain["value"]):
                parts.append(
                    f"{gain['text']} points {where} ({'; '.join(filter(None, (gain['interval'], gain['sentence'])))})"
                )
        if parts:
            sentences.append(f"Against {other}: {', and '.join(parts)}.")
    return sentences + blend_in_words(inputs.config.get("blend", {}))


def means(inputs: Inputs) -> dict[str, str]:
    """Titles of the means that some variant has."""
    measured = {name for variant in VARIANTS for name in inputs.metrics.get(variant, {})}
    return {name: title for name, title in ALL_MEANS.items() if name in measured}


def notes(inputs: Inputs) -> list[str]:
    """What a reader must know before believing the numbers."""
    config, thresholds = inputs.config, inputs.thresholds
    backbone = config.get("backbone", {})
    warnings = []
    if warning := find_backbone(str(backbone.get("name", ""))).warning:
        warnings.append(warning)
    if backbone.get("pretrained") == "random":
        warnings.append("The backbone has random weights: the numbers below only show that the program runs.")
    if config.get("validation_extra_labels"):
        warnings.append(
            "Validation used extra labels: its pictures come from the pool that the long-tailed draw left over. "
            "A method that only sees the training list does not have them, so compare with published rows with care."
        )
    warnings += group_notes(inputs.metrics)
    if int(config.get("validation_rows", 0)) == 0:
        warnings.append("There were no validation pictures: the last epoch was kept.")
    if refitted := int(config.get("refit_rows", 0)):
        probe = ", the linear probe too" if "linear_probe" in inputs.metrics else ""
        chosen = "Blend, thresholds" if config.get("blend", {}).get("weights") else "Thresholds"
        is_last = config.get("train", {}).get("select") == "last"
        after = "the last epoch" if is_last else "the epoch was chosen on the validation pictures"
        warnings.append(
            f"After {after}, everything was trained once more on"
            f" {counted(refitted, 'training and validation picture')} together{probe}. {chosen} and calibration come"
            " from scores of models that had not seen the picture."
        )
    elif thresholds.get("source") == "out_of_fold":
        warnings.append("Thresholds were chosen on out-of-fold scores of the pictures it was trained on.")
    return warnings + list(inputs.metrics.get("threshold", {}).get("notes", []))


# ---------------------------------------------------------------- classes


def overview(inputs: Inputs) -> Part:
    """AP per class, sorted by training images."""
    frame = inputs.per_class.fillna({"train_count": 0, "positives": 0})
    rows = frame.astype({"train_count": int, "positives": int}).to_dict("records")
    why = f"it rests on fewer than {MIN_POSITIVES} test pictures"
    if is_grouped(inputs.metrics):
        why = f"it rests on test pictures of fewer than {MIN_POSITIVES} groups"
    if is_of_one_group(inputs.metrics):
        why = "all test pictures are of one group"
    return {
        "chart": charts.overview(rows),
        "pale": why if any(finite(row["ap"]) and not finite(row["ap_low"]) for row in rows) else "",
    }


def class_rows(inputs: Inputs) -> list[Part]:
    """The columns of per_class.csv, ``marks`` and what was ``chosen``, one row a class: for the tables of classes."""
    chosen = {item["name"]: item for item in inputs.thresholds.get("classes", ())}
    critical = inputs.classes.critical
    borrowed, any_chosen = set(borrowers(inputs.thresholds)), were_chosen(inputs.thresholds)
    rows = []
    for row in shown_rows(inputs.per_class):
        threshold = chosen.get(row["class"], {})
        marks = {
            "critical": row["class"] in critical,
            "borrowed": row["class"] in borrowed,
            "objective not reached": any_chosen and not threshold.get("reached", True),
        }
        marked = [mark for mark, is_set in marks.items() if is_set]
        rows.append(row | {"chosen": {"threshold": row["threshold"]} | threshold, "marks": marked})
    return rows


# ---------------------------------------------------------------- training


def training(inputs: Inputs) -> Part:
    """Loss and validation mAP over the epochs, the kept epoch marked."""
    frame = inputs.history
    if frame.empty:
        return {}
    epochs, kept = frame["epoch"].tolist(), as_float(inputs.config.get("selected_epoch"))
    axis = charts.nice_axis(epochs, "epoch", whole=True)

    def lines(y: charts.Axis, css_classes: Mapping[str, str], label: str) -> str:
        """A chart of the columns that have values."""
        series = [
            Series(epochs, frame[name].tolist(), css_class)
            for name, css_class in css_classes.items()
            if name in measured
        ]
        return charts.chart(axis, y, series, label, vertical=kept, note="kept") if series else ""

    measured = set(frame.columns[frame.notna().any()])
    losses = charts.nice_axis(frame["loss"].tolist(), "training loss", from_zero=True)
    css_classes = {"val_mAP": "ink", "val_head": "head", "val_medium": "medium", "val_tail": "tail"}
    return {
        "kept": whole(kept),
        "epochs": counted(len(frame), "epoch"),
        "loss": lines(losses, {"loss": "ink"}, "Training loss over epochs"),
        "means": lines(share_axis("validation mAP, %"), css_classes, "Validation mAP over epochs"),
        "legend": [
            {"bucket": css_class, "text": MEANS[name.removeprefix("val_")]}
            for name, css_class in css_classes.items()
            if name in measured
        ],
    }
