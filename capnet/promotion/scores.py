"""The scores that a promotion compares: kept with every run, read back from a store that others may write to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from capnet.contracts import (
    SCHEMA,
    SCORED_COLUMNS,
    SEEN_COLUMNS,
    Classes,
    hashed_groups,
    known_labels,
    read_document,
    read_gate_rows,
    read_split,
    reading,
    write_gate_rows,
    write_json,
)
from capnet.errors import ContractError
from capnet.promotion.decisions import NOT_CHOSEN, GateThresholds, gate_thresholds

FOLDER = "gate"  # among the artifacts of a run
TEST, SEEN, CLASSES = "test.parquet", "seen.parquet", "gate.json"


@dataclass(frozen=True)
class GateScores:
    """Test rows of one model: columns sha256, group (hashed), labels, unknown, scores [class]; ``seen``: sha256 and
    group of train and val rows.
    """

    classes: Mapping[str, Any]
    test: pd.DataFrame
    seen: pd.DataFrame

    @property
    def names(self) -> list[str]:
        return [item["name"] for item in self.classes["classes"]]

    @property
    def critical(self) -> set[str]:
        return {item["name"] for item in self.classes["classes"] if item["critical"]}

    @property
    def thresholds(self) -> GateThresholds | None:
        """The thresholds of its classes; None where it was registered before they were kept here."""
        return gate_thresholds(self.classes["classes"])

    @property
    def tail(self) -> list[str]:
        return [item["name"] for item in self.classes["classes"] if item["bucket"] == "tail"]


def gate_scores(split: Path, evaluation: Path, classes: Classes, content_hash: str) -> GateScores:
    """The scores of one model, from the stages' folders.

    Args:
        split: folder of split.parquet.
        evaluation: folder of predictions.parquet and thresholds.json.
        classes: of both.
        content_hash: of the model.

    Raises:
        ContractError: a test row has no scores of the variant capnet.
    """
    from capnet.evaluation.report.choices import were_chosen
    from capnet.evaluation.split_rows import served_test_scores
    from capnet.evaluation.thresholds_file import read_thresholds

    table = read_split(split / "split.parquet")
    rows = table[table["split"] == "test"].reset_index(drop=True)
    test = rows[["sha256", "labels", "unknown"]].assign(
        group=hashed_groups(rows["group"]), scores=served_test_scores(evaluation / "predictions.parquet", rows)
    )
    others = table[table["split"].isin(("train", "val"))]
    chosen = read_thresholds(evaluation / "thresholds.json", classes)
    is_chosen = were_chosen(chosen)
    items = [
        {
            "name": item.name,
            "bucket": item.bucket,
            "train_count": item.train_count,
            "critical": item.critical,
            "threshold": float(cut["threshold"]),
            "objective": str(cut.get("objective", chosen.get("objective", "f1"))) if is_chosen else NOT_CHOSEN,
        }
        for item, cut in zip(classes.items, chosen["classes"], strict=True)
    ]
    about = {"schema": SCHEMA, "classes": items, "content_hash": content_hash}
    seen = others[["sha256"]].assign(group=hashed_groups(others["group"])).reset_index(drop=True)
    return GateScores(about, test, seen)


def write_gate(folder: Path, scores: GateScores) -> None:
    """Three files for the run's artifacts."""
    write_gate_rows(folder / TEST, scores.test, SCORED_COLUMNS)
    write_gate_rows(folder / SEEN, scores.seen, SEEN_COLUMNS)
    write_json(folder / CLASSES, dict(scores.classes))


def read_gate(folder: Path) -> GateScores:
    """What ``write_gate`` wrote: it comes from a store, so from whoever may write there.

    Raises:
        ContractError: a file is missing or damaged, or does not fit the others.
    """
    content = read_document(folder / CLASSES)
    try:
        test, seen = read_gate_rows(folder / TEST, SCORED_COLUMNS), read_gate_rows(folder / SEEN, SEEN_COLUMNS)
        with reading(folder / CLASSES):
            names = [item["name"] for item in content["classes"]]
            kinds = [[type(item[key]) for key in ("name", "bucket", "critical")] for item in content["classes"]]
            if not names or len(set(names)) < len(names) or kinds != [[str, str, bool]] * len(names):
                raise ValueError("classes need a name that no other has, a bucket, and whether they are critical")
            counts = [item.get("train_count", 0) for item in content["classes"]]
            if any(type(count) is not int or count < 0 for count in counts):
                raise ValueError("train_count of a class is no number of images")
            gate_thresholds(content["classes"])
        known_labels(test, len(names))
        if {len(row) for row in test["scores"]} - {len(names)}:
            raise ContractError(f"scores are not those of {len(names)} classes", str(folder / TEST))
    except ContractError as error:
        what = f"scores for the gate cannot be read: {error.problems[0].what}"
        raise ContractError(what, error.problems[0].where, "register the model again") from None
    return GateScores(content, test, seen)
