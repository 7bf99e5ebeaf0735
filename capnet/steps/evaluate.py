"""Stage evaluate: score val and test images, choose thresholds, measure every variant with intervals, write the
report.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from capnet.config import Params
from capnet.contracts import (
    SPLITS,
    read_classes,
    read_predictions,
    read_split,
    replace_file,
    tree_hash,
    write_json,
    write_predictions,
)
from capnet.contracts.stage_json import read_model_config
from capnet.data.sources.root import local_root
from capnet.errors import ContractError
from capnet.evaluation.baselines import read_probe
from capnet.evaluation.belonging import require_fitted_rows
from capnet.evaluation.headline import headline_means, stage_figures
from capnet.evaluation.split_rows import make_split, require_positives
from capnet.steps.evaluate_scores import evaluate_scores

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
    fits_probe = has_probe and probe is None
    root = local_root(params.data, inputs["data"], table if fits_probe else table[table["split"] != "train"])
    scorer = Scorer(model_dir, params.runtime)
    _warn_of_precision(scorer.machine.precision, config.get("precision"))
    test = scorer.score(rows["test"], root, "test")
    val = None if rows["val"].empty else scorer.score(rows["val"], root, "validation")
    train_features = None
    if fits_probe:
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


def _warn_of_precision(used: str, trained: str | None) -> None:
    """Scores in another precision than the training's are not those that the model will serve."""
    if trained not in (None, used):
        what = "figures and thresholds are of scores in %s, and this model works in %s, also on servers: set %s to auto"
        logger.warning(what, used, trained, "runtime.precision")


def _input_hashes(model: Path, split: Path) -> dict[str, str]:
    """What the figures hold for."""
    return {"model_md5": tree_hash(model), "split_md5": tree_hash(split)}


def write_results(out: Path, results: Mapping[str, Any]) -> None:
    """Write what ``evaluate_scores`` returned; nine digits hold a float32 exactly."""
    write_predictions(out / "predictions.parquet", results["predictions"])
    for name in ("evaluation", "metrics", "thresholds"):
        write_json(out / f"{name}.json", results[name])
    table = results["per_class"].to_csv(index=False, lineterminator="\n", float_format="%.9g")
    replace_file(out / "per_class.csv", table)
