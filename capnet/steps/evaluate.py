"""Stage evaluate: score val and test images, choose thresholds, measure every variant with intervals, write the
report.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from capnet.config import Evaluate, Params
from capnet.contracts import (
    SPLITS,
    Classes,
    read_classes,
    read_predictions,
    read_split,
    replace_file,
    sampling_units,
    tree_hash,
    write_json,
    write_predictions,
)
from capnet.contracts.stage_json import read_model_config
from capnet.data.sources.root import local_root
from capnet.data.splits.stratify import stratified_folds
from capnet.errors import ContractError
from capnet.evaluation.baselines import FOLDS, FittedProbe, ProbeRows, fit_linear_probe, read_probe
from capnet.evaluation.headline import compared_figures, headline_means, stage_figures
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
from capnet.evaluation.split_rows import SplitRows, held_out_rows, make_split, require_fitted_rows, require_positives
from capnet.evaluation.thresholds import Thresholds, choose_thresholds, no_thresholds
from capnet.evaluation.thresholds_file import thresholds_document
from capnet.progress import track

if TYPE_CHECKING:
    from capnet.data.images.stored_features import Features
    from capnet.evaluation.tte import Scored

logger = logging.getLogger(__name__)


def evaluate(
    params: Params,
    inputs: dict[str, Path],
    outputs: dict[str, Path],
    log: Callable[[Mapping[str, float], int], None] | None = None,
) -> dict[str, float]:
    """Measure CapNet, zero-shot and a linear probe on the test rows.

    Args:
        params: all settings.
        inputs: folders split, model and data.
        outputs: folder evaluation.
        log: gets CapNet's means as soon as they are known.

    Returns:
        The headline means as fractions of 1.

    Raises:
        ContractError: split and model do not belong together, or one was replaced meanwhile.
        DataError: there is nothing to measure on, or images cannot be used.
    """
    from capnet.data.images.stored_features import last_stage
    from capnet.evaluation.report.render import render
    from capnet.evaluation.tte import Scorer

    split_dir, model_dir, out = inputs["split"], inputs["model"], outputs["evaluation"]
    classes = read_classes(split_dir / "classes.json")
    read_classes(model_dir / "classes.json", classes.fingerprint)
    table = read_split(split_dir / "split.parquet")
    rows = {name: table[table["split"] == name].reset_index(drop=True) for name in SPLITS}
    config = read_model_config(model_dir)
    measured = _input_hashes(model_dir, split_dir)
    require_fitted_rows(config, table, model_dir / "config.json")
    require_positives(make_split(table, "test", classes, {}))  # before minutes of scoring

    has_probe = params.evaluate.probe.enabled and not rows["train"].empty
    sizes = len(classes), len(rows["train"]), len(rows["val"])
    probe = read_probe(model_dir / "probe.safetensors", *sizes) if has_probe else None
    fits = has_probe and probe is None
    root = local_root(params.data, inputs["data"], table if fits else table[table["split"] != "train"])
    scorer = Scorer(model_dir, params.runtime)
    used, chosen = scorer.machine.precision, config.get("precision")
    if chosen not in (None, used):
        what = "figures and thresholds are of scores in %s, and this model works in %s, also on servers: set %s to auto"
        logger.warning(what, used, chosen, "runtime.precision")
    test = scorer.score(rows["test"], root, "test")
    val = None if rows["val"].empty else scorer.score(rows["val"], root, "validation")
    train_features = None
    if fits:
        stored = scorer.frozen(rows["train"], root, "training (test-time views of)")
        train_features = last_stage(stored, scorer.loaded.model.towers.pooled_dim)
    path = model_dir / "out_of_fold.parquet"
    has_held_out = path.is_file() and (val is None or config.get("refit_rows"))
    out_of_fold, views = read_predictions(path) if has_held_out else None, config["tte"]

    # many small problems: more threads are slower, and another number of them gives other bits
    with threadpool_limits(1):
        results = evaluate_scores(table, classes, val, test, train_features, params.evaluate, out_of_fold, views, probe)
    results["evaluation"] |= measured
    write_results(out, results)
    for note in results["evaluation"]["threshold"]["notes"]:
        logger.warning("%s", note)
    if log is not None:
        log(headline_means(results["evaluation"]), 0)
    replace_file(out / "report.html", render(out, model_dir, split_dir, root, params.evaluate.report))
    if _input_hashes(model_dir, split_dir) != measured:  # by a training in another shell: parts of two models were read
        what = "the model or the split was replaced while it was evaluated"
        todo = "let the stage that writes it end, then run `capnet evaluate` again"
        raise ContractError(what, f"{model_dir}, {split_dir}", todo)
    return stage_figures(results["evaluation"])


def _input_hashes(model: Path, split: Path) -> dict[str, str]:
    """What the figures hold for."""
    return {"model_md5": tree_hash(model), "split_md5": tree_hash(split)}


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

    chosen, source = thresholds(val, held_out, probe, config, classes)
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


def write_results(out: Path, results: Mapping[str, Any]) -> None:
    """Write what ``evaluate_scores`` returned; nine digits hold a float32 exactly."""
    write_predictions(out / "predictions.parquet", results["predictions"])
    for name in ("evaluation", "metrics", "thresholds"):
        write_json(out / f"{name}.json", results[name])
    table = results["per_class"].to_csv(index=False, lineterminator="\n", float_format="%.9g")
    replace_file(out / "per_class.csv", table)


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


def thresholds(
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
