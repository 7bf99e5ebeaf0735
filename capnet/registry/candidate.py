"""What is about to be registered, read from the files of earlier stages: checks and content hash. No mlflow here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from capnet.contracts import (
    Classes,
    number,
    read_classes,
    read_csv_rows,
    reading,
    sha256_files,
)
from capnet.contracts.stage_json import read_evaluation, read_findings, read_model_config
from capnet.errors import ContractError, GateError, Problem
from capnet.evaluation.belonging import require_measured, require_split
from capnet.evaluation.headline import headline_means
from capnet.evaluation.thresholds_file import made_for, other_views, read_thresholds
from capnet.promotion.scores import GateScores, gate_scores

MODEL_FILES = ("classes.json", "config.json", "graph.safetensors", "history.csv", "model.safetensors")
# they decide about the content; predictions follow from it
EVALUATION_FILES = ("evaluation.json", "per_class.csv", "thresholds.json")


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
    _require_files(split, validation, model, evaluation)
    drawn = read_classes(split / "classes.json")
    classes = read_classes(model / "classes.json", drawn.fingerprint)
    config = read_model_config(model)
    thresholds, metrics = read_thresholds(evaluation / "thresholds.json"), read_evaluation(evaluation)
    findings = read_findings(validation)
    per_class = read_csv_rows(evaluation / "per_class.csv", ("class", "ap"))
    problems = _disagreements(drawn, classes, config, thresholds, metrics, per_class, model, evaluation)
    if problems:
        raise ContractError(problems=problems)
    require_measured(metrics, model, evaluation / "evaluation.json")
    require_split(metrics, split, evaluation / "evaluation.json", "run `capnet evaluate` again, or `dvc repro`")
    require_split(findings, split, validation / "validation.json", "run `capnet validate` again, or `dvc repro`")
    _require_passed(findings, validation / "validation.json")
    history = _read_history(model / "history.csv")
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


def _require_files(split: Path, validation: Path, model: Path, evaluation: Path) -> None:
    """Raise ContractError for outputs of stages that are missing."""
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


def _disagreements(
    drawn: Classes,
    classes: Classes,
    config: Mapping[str, Any],
    thresholds: Mapping[str, Any],
    metrics: Mapping[str, Any],
    per_class: Sequence[Mapping[str, str]],
    model: Path,
    evaluation: Path,
) -> list[Problem]:
    """What the files of a split (``drawn``), a model and its evaluation say differently, or do not say."""
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
    return problems


def _require_passed(findings: Mapping[str, Any], path: Path) -> None:
    """Raise GateError where the data check refused the split."""
    if not findings.get("success", True):
        failed = [
            check["name"]
            for check in findings["checks"]
            if not check["success"] and check.get("severity") == "critical"
        ]
        todo = "correct the data, or the settings in section validate, and run all stages from there on again"
        what = f"the data check refused this split: {', '.join(failed)}"
        raise GateError(what, str(path), todo)


def _read_history(path: Path) -> Sequence[Mapping[str, str]]:
    """The rows of history.csv, as text; each has an epoch."""
    history = read_csv_rows(path, ("epoch",))
    with reading(path):
        for row in history:
            if not 0 < (number(row["epoch"]) or 0) < math.inf:
                raise ValueError(f"epoch {row['epoch']}")
    return history
