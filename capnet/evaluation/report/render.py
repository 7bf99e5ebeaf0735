"""The evaluation report: one HTML file that needs no network, no script and no other file."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from capnet.config import Report
from capnet.contracts import VARIANTS
from capnet.errors import counted
from capnet.evaluation.report import choices, comparisons, sections, words
from capnet.evaluation.report.cells import bar_cell, difference_cell, pair_cell
from capnet.evaluation.report.curves import FEW, precision_recall, reliability_charts
from capnet.evaluation.report.graph import neighbours, premise
from capnet.evaluation.report.inputs import Inputs, read_inputs
from capnet.evaluation.report.intervals import intervals_in_words
from capnet.evaluation.report.promises import decisions, promises
from capnet.evaluation.report.thumbnails import PER_CLASS, worst_images
from capnet.evaluation.report.words import flatten
from capnet.evaluation.thresholds_file import thresholds_and_calibration
from capnet.pages import page_templates

if TYPE_CHECKING:
    from jinja2 import Environment


def render(evaluation_dir: Path, model_dir: Path, split_dir: Path, data_root: Path, settings: Report) -> str:
    """The report as HTML under 2 MB; equal files give equal bytes.

    Args:
        evaluation_dir, model_dir, split_dir: as in ``read_inputs``.
        data_root: folder of the images; read only if ``settings.thumbnails``.
        settings: section evaluate.report.

    Raises:
        ContractError: as in ``read_inputs``.
    """
    inputs = read_inputs(evaluation_dir, model_dir, split_dir)
    script = Path(__file__).with_name("report.js").read_text()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        _templates()
        .get_template("report.html")
        .render(
            **contents(inputs),
            pictures=_pictures(inputs, data_root, settings),
            per_class_pictures=PER_CLASS,
            glyphs=words.GLYPHS,
            variant_names=words.VARIANT_NAMES,
            script=Markup(script),
            script_hash=digest,
        )
    )


@cache
def _templates() -> Environment:
    """Where the page and its style are, compiled once a process."""
    environment = page_templates(Path(__file__).parent)
    filters = (words.fixed, words.percent, words.points, words.score, words.whole)
    environment.filters |= {function.__name__: function for function in filters}
    functions = (bar_cell, counted, difference_cell, pair_cell, words.difference, words.interval)
    environment.globals |= {function.__name__: function for function in functions}
    return environment


def contents(inputs: Inputs) -> dict[str, Any]:
    """Everything the template shows besides the thumbnails."""
    config = inputs.config
    tte = inputs.thresholds.get("views") or config.get("tte", {})
    views, size = tte.get("views", "-"), f" of {tte['size']} pixels" if tte.get("size") else ""
    return {
        "subtitle": _subtitle(inputs),
        "notes": sections.notes(inputs),
        "verdict": sections.verdict(inputs),
        "cards": sections.summary_cards(inputs),
        "means": sections.means(inputs),
        "variants": {name: inputs.metrics[name] for name in VARIANTS if inputs.metrics.get(name)},
        "overview": sections.overview(inputs),
        "classes": sections.class_rows(inputs),
        "class_total": len(inputs.classes),
        "with_probe": bool(inputs.per_class["ap_linear_probe"].notna().any()),
        "zero_shot": comparisons.against_zero_shot(inputs),
        "ensembling": [] if views == 1 else comparisons.ensembling(inputs),
        "views": (
            f"{views} {'view' if views == 1 else 'views'}{size}, {tte.get('expand', '-')} pixels beyond the crop,"
            f" average of {tte.get('average', '-')}"
        ),
        "slices": comparisons.slices(inputs),
        "curves": precision_recall(inputs),
        "premise": premise(inputs),
        "neighbours": neighbours(inputs),
        "training": sections.training(inputs),
        "reliability": reliability_charts(inputs),
        "few_decisions": FEW,
        "thresholds": {
            "objective": choices.objectives_in_words(inputs.thresholds),
            "source": choices.chosen_on(inputs.thresholds.get("source"), ""),
            "borrowed": len(choices.borrowers(inputs.thresholds)),
            "groups": choices.groups_in_words(inputs.thresholds),
            "decisions": decisions(inputs.metrics),
            "promises": promises(inputs.metrics),
        },
        "bootstrap": intervals_in_words(inputs.metrics),
        "left_out": list(inputs.metrics.get("left_out", ())),
        "settings": [
            ("model", flatten(config)),
            ("graph", flatten(dict(inputs.graph.metadata))),
            ("split", flatten(inputs.split_notes)),
            ("linear probe", flatten(inputs.metrics.get("probe", {}))),
        ],
    }


def _subtitle(inputs: Inputs) -> list[str]:
    backbone = inputs.config.get("backbone", {})
    validation = int(inputs.config.get("validation_rows", 0))
    return [
        f"{backbone.get('name', '-')} ({backbone.get('pretrained', '-')})",
        counted(len(inputs.classes), "class", "classes"),
        counted(len(inputs.train.rows), "training picture"),
        counted(validation, "validation picture") if validation else "no validation pictures",
        counted(len(inputs.test.rows), "test picture"),
    ]


def _pictures(inputs: Inputs, root: Path, settings: Report) -> list[dict[str, Any]]:
    if not settings.thumbnails:
        return []
    limits, _ = thresholds_and_calibration(inputs.thresholds)
    buckets = np.array(inputs.classes.buckets)
    return worst_images(inputs.test, inputs.scores, limits, inputs.classes.names, buckets, settings.worst, root)
