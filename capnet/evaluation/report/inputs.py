"""Everything the report shows, read from the files of one run; nothing is measured again that evaluation.json holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from capnet.contracts import Classes, LabelGraph, read_classes, read_csv_rows, read_graph, read_json, read_split
from capnet.contracts.stage_json import read_evaluation, read_model_config
from capnet.errors import ContractError
from capnet.evaluation.split_rows import SplitRows, make_split, served_test_scores
from capnet.evaluation.thresholds_file import read_thresholds

NUMBERS = (  # columns of per_class.csv
    "train_count",
    "positives",
    "ap",
    "ap_low",
    "ap_high",
    "ap_single_view",
    "ap_zero_shot",
    "ap_linear_probe",
    "threshold",
    "precision",
    "precision_low",
    "precision_high",
    "recall",
    "recall_low",
    "recall_high",
    "f1",
)
HISTORY = ("epoch", "loss", "val_mAP", "val_head", "val_medium", "val_tail")  # columns of history.csv
ROWS_SHOWN = 1200  # classes per table; more would not fit into the size of the report


@dataclass(frozen=True)
class Inputs:
    """The files of one run, checked and aligned."""

    classes: Classes
    metrics: Mapping[str, Any]
    per_class: pd.DataFrame  # per_class.csv; numbers as float, NaN where there is none
    thresholds: Mapping[str, Any]
    config: Mapping[str, Any]
    history: pd.DataFrame  # history.csv, likewise
    graph: LabelGraph
    split_notes: Mapping[str, Any]  # split.json, {} where there is none
    train: SplitRows
    test: SplitRows
    scores: np.ndarray  # float32 [test image, class] of the variant capnet, rows as in test


def read_inputs(evaluation_dir: Path, model_dir: Path, split_dir: Path) -> Inputs:
    """Read and align all files of one run.

    Args:
        evaluation_dir: with thresholds.json, evaluation.json, per_class.csv and predictions.parquet.
        model_dir: with config.json, classes.json, history.csv and graph.safetensors.
        split_dir: with split.parquet, classes.json and, where it exists, split.json.

    Raises:
        ContractError: a file is missing, damaged or made for other classes or rows.
    """
    classes = read_classes(split_dir / "classes.json")
    read_classes(model_dir / "classes.json", classes.fingerprint)
    config = read_model_config(model_dir)
    thresholds = read_thresholds(evaluation_dir / "thresholds.json", classes)
    if config.get("class_fingerprint") != classes.fingerprint:
        todo = "run `dvc repro`: all stages must see the same class list"
        raise ContractError("made for other classes", str(model_dir / "config.json"), todo)
    rows = read_split(split_dir / "split.parquet")
    notes = split_dir / "split.json"
    test = make_split(rows, "test", classes, {})
    return Inputs(
        classes=classes,
        metrics=read_evaluation(evaluation_dir),
        per_class=_read_per_class(evaluation_dir / "per_class.csv", classes),
        thresholds=thresholds,
        config=config,
        history=_read_table(model_dir / "history.csv", (), HISTORY),
        graph=read_graph(model_dir / "graph.safetensors", classes),
        split_notes=read_json(notes) if notes.is_file() else {},
        train=make_split(rows, "train", classes, {}),
        test=test,
        scores=_scores(evaluation_dir / "predictions.parquet", test.rows, len(classes)),
    )


def _scores(path: Path, test: pd.DataFrame, n_classes: int) -> np.ndarray:
    """Scores of CapNet in the order of the test rows."""
    chosen = served_test_scores(path, test)
    lengths = {len(item) for item in chosen} - {n_classes}
    if lengths:
        raise ContractError(
            f"{min(lengths)} scores of a picture for {n_classes} classes", str(path), "run `capnet evaluate` again"
        )
    return np.array(chosen, dtype=np.float32).reshape(len(test), n_classes)


def _read_per_class(path: Path, classes: Classes) -> pd.DataFrame:
    """per_class.csv; a class may be called "nan" or "None", so only numbers may be empty."""
    frame = _read_table(path, ("class", "bucket"), NUMBERS)
    if sorted(frame["class"]) != sorted(classes.names):
        raise ContractError("its classes are not those of classes.json", str(path), "run `capnet evaluate` again")
    return frame.sort_values("train_count", ascending=False, kind="stable").reset_index(drop=True)


def _read_table(path: Path, words: Sequence[str], numbers: Sequence[str]) -> pd.DataFrame:
    """Columns of a CSV table; numbers as float, NaN where there is none."""
    frame = pd.DataFrame(read_csv_rows(path, (*words, *numbers)), columns=[*words, *numbers])
    return frame.assign(**{name: pd.to_numeric(frame[name], errors="coerce").astype("float64") for name in numbers})


def shown_rows(per_class: pd.DataFrame) -> list[dict[Any, Any]]:
    """Of all classes, or of the most and the least frequent where there are too many for one page."""
    if len(per_class) > ROWS_SHOWN:
        per_class = pd.concat([per_class.head(ROWS_SHOWN // 3), per_class.tail(ROWS_SHOWN - ROWS_SHOWN // 3)])
    return per_class.to_dict("records")
