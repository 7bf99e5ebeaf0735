"""What the run of a registered model shows, and the reference for drift that travels with the model. No mlflow here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from capnet.contracts import number, read_split, unique_slugs
from capnet.evaluation.headline import BASELINES, HEADLINE, headline_figures, headline_means
from capnet.evaluation.report.words import leaves
from capnet.evaluation.split_rows import make_split, served_predictions
from capnet.evaluation.thresholds_file import thresholds_and_calibration
from capnet.registry.candidate import Candidate
from capnet.serving.drift import reference_document

# metric: column of per_class.csv
PER_CLASS = {"ap": "ap", "precision": "precision", "recall": "recall", "threshold": "threshold", "support": "positives"}


def flat_params(config: Mapping[str, Any]) -> dict[str, str]:
    """Nested settings as ``{"train.loss.name": "db_focal"}``; lists as JSON. The gains of a blend are figures, not
    settings, and left out.
    """
    return {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in leaves(config)
        if not name.startswith("blend.gains.")
    }


def figures(candidate: Candidate) -> dict[str, float]:
    """The metrics of the run, by name.

    Args:
        candidate: what is registered.

    Returns:
        The headline figures (``mAP``, ``tail_low``, ``gain``), the means of the baselines (``zero_shot/tail``) and of
        CapNet on every slice (``slice-unseen/mAP``), and what per_class.csv says of every class (``ap/<slug>``,
        ``support/<slug>``). Everything else is in evaluation.json, an artifact of the run.
    """
    evaluation = candidate.metrics
    named: dict[str, float] = headline_figures(evaluation)
    named |= {
        f"{variant}/{name}": value
        for variant in BASELINES
        for name, value in headline_means(evaluation, variant).items()
    }
    slices = evaluation.get("slices", {})
    for slug, variants in zip(unique_slugs(list(slices)), slices.values(), strict=True):
        named |= {f"slice-{slug}/{name}": value for name, value in headline_means(variants).items()}
    slugs = {item.name: item.slug for item in candidate.classes.items}
    for row in candidate.per_class:
        values = {f"{kind}/{slugs[row['class']]}": number(row.get(column)) for kind, column in PER_CLASS.items()}
        named |= {name: value for name, value in values.items() if value is not None}
    return named


def curves(candidate: Candidate) -> Iterator[tuple[str, float, int]]:
    """(metric name, value, epoch) of the training history; what was not measured is left out."""
    names = {"loss": "train/loss"} | {f"val_{name}": f"val/{name}" for name in HEADLINE}
    for row in candidate.history:
        for column, name in names.items():
            value = number(row.get(column))
            if value is not None:
                yield name, value, int(float(row["epoch"]))


def reference(candidate: Candidate) -> dict[str, Any]:
    """What travels with the model to compare later scores with: label rates of the training rows, over known labels,
    and the model's scores of the test rows.

    Scores of training rows would not do: they are out of fold, so by other models, and with them up to seven in ten
    batches in which nothing had changed were reported as different in some class.
    """
    train = make_split(read_split(candidate.split / "split.parquet"), "train", candidate.classes, {})
    rates = train.labels.sum(axis=0) / np.maximum(1, train.known.sum(axis=0))
    rows = served_predictions(candidate.evaluation / "predictions.parquet", "test")
    scores = np.stack(rows["scores"].tolist()).astype(np.float32)
    thresholds, _ = thresholds_and_calibration(candidate.thresholds)
    return reference_document(candidate.classes.names, rates, scores, thresholds)
