"""What is about to be registered, read from the files of earlier stages: checks, content hash, figures, and the
reference for drift. No mlflow here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from capnet.contracts import (
    Classes,
    number,
    read_classes,
    read_csv_rows,
    read_split,
    reading,
    sha256_files,
    unique_slugs,
)
from capnet.contracts.stage_json import read_evaluation, read_findings, read_model_config
from capnet.errors import ContractError, GateError, Problem
from capnet.evaluation.headline import BASELINES, HEADLINE, headline_figures, headline_means
from capnet.evaluation.report.words import leaves
from capnet.evaluation.split_rows import make_split, require_measured, require_split, served_predictions
from capnet.evaluation.thresholds_file import limits_of, made_for, other_views, read_thresholds
from capnet.promotion.scores import GateScores, gate_scores
from capnet.serving.drift import reference_document

MODEL_FILES = ("classes.json", "config.json", "graph.safetensors", "history.csv", "model.safetensors")
# they decide about the content; predictions follow from it
EVALUATION_FILES = ("evaluation.json", "per_class.csv", "thresholds.json")
# metric: column of per_class.csv
PER_CLASS = {"ap": "ap", "precision": "precision", "recall": "recall", "threshold": "threshold", "support": "positives"}


@dataclass(frozen=True)
class Candidate:
    """A trained and evaluated model as files; ``history`` and ``per_class`` are rows of text as written, ``checks``
    what the data gate reported.
    """

    split: Path
    model: Path
    evaluation: Path
    content_hash: str
    classes: Classes
    config: Mapping[str, Any]
    metrics: Mapping[str, Any]
    thresholds: Mapping[str, Any]
    per_class: Sequence[Mapping[str, str]]
    history: Sequence[Mapping[str, str]]
    checks: Sequence[Mapping[str, Any]]

    @property
    def headline(self) -> dict[str, float]:
        """mAP and the buckets that have classes, of the served variant, in fractions of 1."""
        return headline_means(self.metrics)

    @cached_property
    def gate(self) -> GateScores:
        """What promotions compare; two steps of a registration need it, and it is read once."""
        return gate_scores(self.split, self.evaluation, self.classes, self.content_hash)


def content_hash(model: Path, evaluation: Path) -> str:
    """sha256 over the sorted (name, sha256) of all files of the model and of the three evaluation files that decide
    about it.
    """
    files = {f"model/{path.relative_to(model).as_posix()}": path for path in model.rglob("*") if path.is_file()}
    files |= {f"evaluation/{name}": evaluation / name for name in EVALUATION_FILES}
    return sha256_files(files)


def read_candidate(split: Path, validation: Path, model: Path, evaluation: Path) -> Candidate:
    """Read and cross-check four folders.

    Args:
        split, validation, model, evaluation: outputs of the stages split, validate, train and evaluate.

    Raises:
        ContractError: files are missing or damaged, or disagree; names every disagreement at once.
        GateError: the data check refused the split.
    """
    expected = (
        (split, "split", ("split.parquet",)),
        (validation, "validate", ("validation.json",)),
        (model, "train", MODEL_FILES),
        (evaluation, "evaluate", (*EVALUATION_FILES, "predictions.parquet")),
    )
    missing = [
        Problem("a stage's output is missing", str(folder / name), f"run `capnet {stage}` again, or `dvc repro`")
        for folder, stage, names in expected
        for name in names
        if not (folder / name).is_file()
    ]
    if missing:
        raise ContractError(problems=missing)
    drawn = read_classes(split / "classes.json")
    classes = read_classes(model / "classes.json", drawn.fingerprint)
    config = read_model_config(model)
    thresholds, metrics = read_thresholds(evaluation / "thresholds.json"), read_evaluation(evaluation)
    findings = read_findings(validation)
    per_class = read_csv_rows(evaluation / "per_class.csv", ("class", "ap"))
    problems = [
        Problem("made for other classes", str(path), "run `dvc repro`: all stages must see the same class list")
        for path, matches in (
            (model / "config.json", config.get("class_fingerprint") == classes.fingerprint),
            (evaluation / "thresholds.json", made_for(thresholds, classes)),
            (evaluation / "per_class.csv", sorted(row["class"] for row in per_class) == sorted(classes.names)),
        )
        if not matches
    ]
    if classes != drawn:
        what = "prompt names, training counts, buckets or critical classes are not those of the split"
        problems.append(Problem(what, str(model / "classes.json"), "train again, or run `dvc repro`"))
    problems += other_views(thresholds, config, evaluation / "thresholds.json")
    if "mAP" not in metrics.get("capnet", {}):
        where = str(evaluation / "evaluation.json")
        problems.append(Problem("no mAP of the variant capnet", where, "run `capnet evaluate` again"))
    if "model_md5" not in metrics:
        what = "an earlier version wrote this, which does not say with which model it was measured"
        problems.append(Problem(what, str(evaluation / "evaluation.json"), "run `capnet evaluate` again"))
    if problems:
        raise ContractError(problems=problems)
    require_measured(metrics, model, evaluation / "evaluation.json")
    require_split(metrics, split, evaluation / "evaluation.json", "run `capnet evaluate` again, or `dvc repro`")
    require_split(findings, split, validation / "validation.json", "run `capnet validate` again, or `dvc repro`")
    if not findings.get("success", True):
        failed = [
            check["name"]
            for check in findings["checks"]
            if not check["success"] and check.get("severity") == "critical"
        ]
        todo = "correct the data, or the settings in section validate, and run all stages from there on again"
        what = f"the data check refused this split: {', '.join(failed)}"
        raise GateError(what, str(validation / "validation.json"), todo)
    history = read_csv_rows(model / "history.csv", ("epoch",))
    with reading(model / "history.csv"):
        for row in history:
            if not 0 < (number(row["epoch"]) or 0) < math.inf:
                raise ValueError(f"epoch {row['epoch']}")
    return Candidate(
        split=split,
        model=model,
        evaluation=evaluation,
        content_hash=content_hash(model, evaluation),
        classes=classes,
        config=config,
        metrics=metrics,
        thresholds=thresholds,
        per_class=per_class,
        history=history,
        checks=findings["checks"],
    )


# ---------------------------------------------------------------- what the run shows


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
    limits, _ = limits_of(candidate.thresholds)
    return reference_document(candidate.classes.names, rates, scores, limits)
