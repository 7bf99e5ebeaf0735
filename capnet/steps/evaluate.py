"""Stage evaluate: score val and test images, choose thresholds, measure every variant with intervals, write the
report.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from capnet.config import Evaluate, Params
from capnet.contracts import (
    SPLITS,
    Classes,
    read_classes,
    read_json,
    read_predictions,
    read_split,
    replace_file,
    write_json,
    write_predictions,
)
from capnet.data.sources.root import local_root
from capnet.errors import ContractError
from capnet.evaluation.baselines import Chosen, choose_probe, describe, probe_scores
from capnet.evaluation.headline import compared_figures, means, stage_figures
from capnet.evaluation.metrics import Bools, Floats
from capnet.evaluation.probe_file import read_probe
from capnet.evaluation.results import (
    SplitRows,
    calibration_document,
    check_scores,
    evaluation_document,
    make_split,
    measure,
    per_class,
    predictions,
    require_positives,
)
from capnet.evaluation.thresholds import Thresholds, choose_thresholds, no_thresholds, thresholds_document


class ScoredImages(Protocol):
    """Scores float32 [image, class] by variant, and frozen pooled features float32 [image, view, feature] of the
    same views.
    """

    @property
    def scores(self) -> dict[str, np.ndarray]: ...

    @property
    def features(self) -> np.ndarray: ...


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
        ContractError: split and model do not belong together.
        DataError: there is nothing to measure on, or images cannot be used.
    """
    from capnet.evaluation.report.render import render
    from capnet.evaluation.tte import Scorer

    split_dir, model_dir, out = inputs["split"], inputs["model"], outputs["evaluation"]
    classes = read_classes(split_dir / "classes.json")
    read_classes(model_dir / "classes.json", classes.fingerprint)
    table = read_split(split_dir / "split.parquet")
    rows = {name: table[table["split"] == name].reset_index(drop=True) for name in SPLITS}
    require_positives(make_split(table, "test", classes, {}))  # before minutes of scoring

    has_probe = params.evaluate.probe.enabled and not rows["train"].empty
    probe = read_probe(model_dir / "probe.safetensors") if has_probe else None
    fits = has_probe and probe is None
    root = local_root(params.data, inputs["data"], table if fits else table[table["split"] != "train"])
    scorer = Scorer(model_dir, params.runtime)
    test = scorer.score(rows["test"], root, "test")
    val = None if rows["val"].empty else scorer.score(rows["val"], root, "validation")
    train_features = None
    if fits:  # the mean of the views is all that the probe needs
        train_means = scorer.frozen(rows["train"], root, "training (test-time views of)").mean(dim=1)
        train_features = train_means.unsqueeze(1).numpy()
    held_out, config = model_dir / "out_of_fold.parquet", read_json(model_dir / "config.json")
    has_held_out = held_out.is_file() and (val is None or config.get("refit_rows"))
    out_of_fold, views = read_predictions(held_out) if has_held_out else None, config["tte"]

    # many small problems: more threads are slower, and another number of them gives other bits
    with threadpool_limits(1):
        results = evaluate_scores(table, classes, val, test, train_features, params.evaluate, out_of_fold, views, probe)
    write_results(out, results)
    if log is not None:
        log(means(results["evaluation"]), 0)
    replace_file(out / "report.html", render(out, model_dir, split_dir, root, params.evaluate.report))
    return stage_figures(results["evaluation"])


def evaluate_scores(
    split_table: pd.DataFrame,
    classes: Classes,
    scored_val: ScoredImages | None,
    scored_test: ScoredImages,
    train_features: np.ndarray | None,
    config: Evaluate,
    out_of_fold: pd.DataFrame | None,
    views: Mapping[str, Any],
    probe: Chosen | None = None,
) -> dict[str, Any]:
    """All of the evaluation on arrays, which follow the rows of their split.

    Args:
        split_table: rows of split.parquet.
        classes: the columns of all scores.
        scored_val: scores of the validation rows; None where there are none.
        scored_test: scores of the test rows.
        train_features: float32 [image, view, feature], from which the linear probe is fitted unless ``probe`` is given.
        config: the section ``evaluate``.
        out_of_fold: predictions of training rows, for thresholds where there are no validation rows. Beside validation
            rows it holds their scores by the model before it was refitted on them: these take the place of its own
            scores, and the probe is refitted, too.
        views: section tte: the test-time views that the scores were made with.
        probe: that stage train has fitted.

    Returns:
        Tables ``predictions``, ``per_class``; JSON ``evaluation``, ``metrics``, ``thresholds``.
    """
    test = make_split(split_table, "test", classes, scored_test.scores)
    require_positives(test)
    val = make_split(split_table, "val", classes, scored_val.scores if scored_val else {})
    train = make_split(split_table, "train", classes, {})
    refitted = scored_val is not None and out_of_fold is not None
    if probe is None and train_features is not None and config.probe.enabled:
        probe = fit(train, train_features, val, scored_val, config, refitted)
    if probe is not None:
        test.scores["linear_probe"] = probe_scores(probe.probe, scored_test.features.mean(axis=1))
        if scored_val is not None and not refitted:
            val.scores["linear_probe"] = probe_scores(probe.probe, scored_val.features.mean(axis=1))
    if refitted and out_of_fold is not None:
        val.scores.pop("single_view", None)
        val.scores["capnet"] = held_out_scores(val, out_of_fold)
        if probe is not None and probe.held_out is not None:
            val.scores["linear_probe"] = probe.held_out

    chosen, source = thresholds(train, val, probe, out_of_fold, config)
    served = chosen.get("capnet", no_thresholds(len(classes)))
    whole = measure(test, chosen, classes, config.bootstrap)
    evaluation = evaluation_document(test, whole, chosen, classes, config.bootstrap) | {"val_rows": len(val.rows)}
    evaluation["threshold"] = {
        "objective": config.threshold.objective,
        "source": source,
        "borrowed": int(served.borrowed.sum()),
    }
    if source != "none":
        evaluation["calibration"] = calibration_document(test, served, classes)
    if probe is not None:
        evaluation["probe"] = describe(probe, len(train.rows) + (len(val.rows) if refitted else 0))
    return {
        "predictions": predictions([val, test] if len(val.rows) else [test]),
        "evaluation": evaluation,
        "metrics": compared_figures(evaluation),
        "per_class": per_class(test, whole, served, classes),
        "thresholds": thresholds_document(served, classes, config.threshold.objective, views, source),
    }


def write_results(out: Path, results: Mapping[str, Any]) -> None:
    """Write what ``evaluate_scores`` returned; nine digits hold a float32 exactly."""
    write_predictions(out / "predictions.parquet", results["predictions"])
    for name in ("evaluation", "metrics", "thresholds"):
        write_json(out / f"{name}.json", results[name])
    table = results["per_class"].to_csv(index=False, lineterminator="\n", float_format="%.9g")
    replace_file(out / "per_class.csv", table)


def fit(
    train: SplitRows, features: Floats, val: SplitRows, scored_val: ScoredImages | None, config: Evaluate, refit: bool
) -> Chosen:
    """The linear probe, chosen on the validation rows where they have positives, else in folds of the training rows.

    Args:
        train: the training rows.
        features: theirs, [image, view, feature].
        val, scored_val: the validation rows with their features; None where there are none.
        config: the section ``evaluate``.
        refit: fit on the validation rows, too, after they have chosen.
    """
    rows = (scored_val.features.mean(axis=1), val.labels, val.known) if scored_val is not None else None
    return choose_probe(features.mean(axis=1), train.labels, train.known, config.probe.c, rows, refit)


def thresholds(
    train: SplitRows, val: SplitRows, probe: Chosen | None, out_of_fold: pd.DataFrame | None, config: Evaluate
) -> tuple[dict[str, Thresholds], str]:
    """Thresholds by variant and where they come from.

    Args:
        train, val: rows with the scores that they may be chosen on.
        probe: with its held-out scores of the training rows, where it has some.
        out_of_fold: predictions of training rows; None where there are none.
        config: the section ``evaluate``.

    Returns:
        Thresholds by variant, without variants that have no scores on those rows; and val, out_of_fold or none.
    """

    def choose(split: SplitRows, scores: Floats, known: Bools) -> Thresholds:
        return choose_thresholds(
            split.labels & known,
            known,
            scores,
            config.threshold.objective,
            config.threshold.min_positives,
            config.calibration_prior,
        )

    if val.labels.any():
        return {name: choose(val, scores, val.known) for name, scores in val.scores.items()}, "val"
    if out_of_fold is None:
        return {}, "none"
    scores = held_out_scores(train, out_of_fold)
    if not train.labels.any():
        return {}, "none"
    chosen = {"capnet": choose(train, scores, train.known)}
    if (
        probe is not None
        and probe.held_out is not None
        and probe.held_out_known is not None
        and (train.labels & probe.held_out_known).any()
    ):
        chosen["linear_probe"] = choose(train, probe.held_out, probe.held_out_known)
    return chosen, "out_of_fold"


def held_out_scores(split: SplitRows, out_of_fold: pd.DataFrame) -> np.ndarray:
    """Held-out scores float32 [image, class] in the order of the rows of ``split``; raises ContractError where rows
    differ.
    """
    by_id = dict(zip(out_of_fold["image_id"], out_of_fold["scores"], strict=True))
    missing = [name for name in split.rows["image_id"] if name not in by_id]
    if missing or len(by_id) != len(split.rows):
        word = {"train": "training", "val": "validation"}[split.name]
        what = (
            f"{len(by_id)} out-of-fold scores for {len(split.rows)} {word} rows; without:"
            f" {', '.join(missing[:5]) or 'none'}"
        )
        raise ContractError(what, "out_of_fold.parquet", "run `capnet train` again after `capnet split`")
    scores = np.stack([np.asarray(by_id[name], dtype=np.float32) for name in split.rows["image_id"]])
    check_scores(SplitRows(split.name, split.rows, split.labels, split.known, {"capnet (out of fold)": scores}))
    return scores
