"""All of the evaluation on arrays: thresholds, every variant on the test rows with intervals, the probe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from capnet.config import Evaluate
from capnet.contracts import Classes, sampling_units
from capnet.data.splits.stratify import stratified_folds
from capnet.evaluation.baselines import FOLDS, FittedProbe, ProbeRows, fit_linear_probe
from capnet.evaluation.headline import compared_figures
from capnet.evaluation.logistic import probe_scores
from capnet.evaluation.metrics import Floats
from capnet.evaluation.rates import decisions_document
from capnet.evaluation.report.choices import threshold_notes
from capnet.evaluation.results import (
    calibration_document,
    compare_on_test_rows,
    evaluation_document,
    per_class,
    predictions,
)
from capnet.evaluation.split_rows import SplitRows, held_out_rows, make_split, require_positives
from capnet.evaluation.thresholds import Thresholds, choose_thresholds, no_thresholds
from capnet.evaluation.thresholds_file import thresholds_document
from capnet.progress import track

if TYPE_CHECKING:
    from capnet.data.images.stored_features import Features
    from capnet.evaluation.tte import Scored


def evaluate_scores(
    split_table: pd.DataFrame,
    classes: Classes,
    scored_val: Scored | None,
    scored_test: Scored,
    train_features: Features | np.ndarray | None,
    config: Evaluate,
    out_of_fold: pd.DataFrame | None,
    views: Mapping[str, Any],
    probe: FittedProbe | None = None,
) -> dict[str, Any]:
    """All of the evaluation on arrays, which follow the rows of their split.

    Args:
        split_table: rows of split.parquet.
        classes: the columns of all scores.
        scored_val: scores of the validation rows; None where there are none.
        scored_test: scores of the test rows.
        train_features: [image, view, feature], from which the linear probe is fitted unless ``probe`` is given.
        config: the section ``evaluate``.
        out_of_fold: scores of training rows, validation rows or both by models that had not seen them: thresholds are
            chosen on these. Beside validation rows it says that the model was refitted on them: its own scores of these
            do not count, and the probe is refitted, too.
        views: section tte: the test-time views that the scores were made with.
        probe: that stage train has fitted.

    Returns:
        Tables ``predictions``, ``per_class``; JSON ``evaluation``, ``metrics``, ``thresholds``.
    """
    test = make_split(split_table, "test", classes, scored_test.scores)
    require_positives(test)
    val = make_split(split_table, "val", classes, scored_val.scores if scored_val else {})
    train = make_split(split_table, "train", classes, {})
    held_out = None if out_of_fold is None else held_out_rows([train, val], out_of_fold)
    refitted = held_out is not None and scored_val is not None
    if probe is None and train_features is not None and config.probe.enabled:
        probe = fit_missing_probe(train, train_features, val, scored_val, refitted)
    if probe is not None:
        test.scores["linear_probe"] = probe_scores(probe.probe, scored_test.features)
        if scored_val is not None and not refitted:
            val.scores["linear_probe"] = probe_scores(probe.probe, scored_val.features)
    if refitted and held_out is not None:
        val.scores.pop("single_view", None)
        val.scores["capnet"] = held_out.scores["capnet"][-len(val.rows) :]  # validation rows come last
        if probe is not None and probe.held_out is not None:
            val.scores["linear_probe"] = probe.held_out[-len(val.rows) :]

    chosen, source = thresholds_by_variant(val, held_out, probe, config, classes)
    served = chosen.get("capnet", no_thresholds(len(classes)))
    whole = compare_on_test_rows(test, chosen, classes, config.bootstrap)
    evaluation = evaluation_document(test, whole, chosen, classes, config.bootstrap) | {"val_rows": len(val.rows)}
    thresholds_content = thresholds_document(served, classes, config.threshold, views, source)
    evaluation["threshold"] = {
        **{key: thresholds_content[key] for key in ("objective", "critical_objective") if key in thresholds_content},
        "source": source,
        "borrowed": int(served.borrowed.sum()),
        "notes": threshold_notes(thresholds_content),
    }
    evaluation["decisions"] = decisions_document(test, served.threshold, classes)
    if source != "none":
        evaluation["calibration"] = calibration_document(test, served, classes)
    if probe is not None:
        fitted_rows = len(train.rows) + (len(val.rows) if refitted else 0)
        evaluation["probe"] = probe.document() | {"train_rows": fitted_rows}
    return {
        "predictions": predictions([val, test] if len(val.rows) else [test]),
        "evaluation": evaluation,
        "metrics": compared_figures(evaluation),
        "per_class": per_class(test, whole, served, classes),
        "thresholds": thresholds_content,
    }


def fit_missing_probe(
    train: SplitRows, features: Features | np.ndarray, val: SplitRows, scored_val: Scored | None, refit: bool
) -> FittedProbe:
    """The linear probe that stage train has not fitted; with held-out scores of the training rows where no validation
    row has a positive.

    Args:
        train: the training rows.
        features: theirs, [image, view, feature].
        val, scored_val: the validation rows with their features; None where there are none.
        refit: fit on the validation rows, too.
    """
    rows = ProbeRows(features, train.labels, train.known)
    if refit and scored_val is not None:
        return fit_linear_probe(rows, ProbeRows(scored_val.features, val.labels, val.known))
    folds = None
    if not val.labels.any():
        folds = stratified_folds(train.labels, sampling_units(train.rows), FOLDS, 0)
    return fit_linear_probe(rows, folds=folds)


def thresholds_by_variant(
    val: SplitRows, held_out: SplitRows | None, probe: FittedProbe | None, config: Evaluate, classes: Classes
) -> tuple[dict[str, Thresholds], str]:
    """Thresholds by variant, and on which rows the served ones are chosen.

    Args:
        val: validation rows with the scores that may be used.
        held_out: rows with scores by models that had not seen them; None where there are none.
        probe: with its held-out scores, where it has some.
        config: the section ``evaluate``.
        classes: critical ones may have an objective of their own.

    Returns:
        Thresholds by variant, without variants that have no scores on those rows; and val, out_of_fold or none.
    """
    settings = config.threshold
    critical = settings.critical_objective or settings.objective
    objectives = [critical if item.critical else settings.objective for item in classes.items]

    def choose(split: SplitRows, scores: Floats) -> Thresholds:
        return choose_thresholds(
            split.labels,
            split.known,
            scores,
            objectives,
            settings.min_positives,
            config.calibration_prior,
            sampling_units(split.rows),
        )

    rows = {name: (val, scores) for name, scores in val.scores.items()} if val.labels.any() else {}
    source = "val" if rows else "none"
    if held_out is not None and held_out.labels.any():
        source = "val" if held_out.name == "val" else "out_of_fold"
        rows["capnet"] = held_out, held_out.scores["capnet"]
        if probe is not None and probe.held_out is not None and len(probe.held_out) == len(held_out.rows):
            rows["linear_probe"] = held_out, probe.held_out
    chosen = track(rows.items(), "thresholds", len(rows))
    return {name: choose(*those) for name, those in chosen}, source
