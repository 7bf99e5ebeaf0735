"""Published counts: the real VOC-LT and COCO-LT lists pass, one label more or one picture less does not."""

from __future__ import annotations

import csv
from pathlib import Path

import pandas as pd
import pytest

from capnet.contracts import Classes, make_classes
from capnet.data.checks.expectations import judge
from capnet.data.checks.published import published_rules, published_table

LISTS = {
    "voc-lt": ("voc_lt_train.csv", "voc20_classes.txt", 4952),
    "coco-lt": ("coco_lt_train.csv", "coco80_classes.txt", 5000),
}


def published(shared: Path, name: str) -> tuple[pd.DataFrame, Classes]:
    """The published training rows from the list itself, and as many test rows as there should be."""
    train, names, test = LISTS[name]
    with open(shared / "data/labels" / train, newline="") as file:
        labels = [[int(label) for label in row["labels"].split()] for row in csv.DictReader(file)]
    rows = [*((row, "train") for row in labels), *(([0], "test") for _ in range(test))]
    frame = pd.DataFrame(
        {"labels": [row for row, _ in rows], "unknown": [[]] * len(rows), "split": [side for _, side in rows]}
    )
    return frame, make_classes(
        (shared / "data/labels" / names).read_text().split("\n")[: 20 if name == "voc-lt" else 80]
    )


@pytest.mark.parametrize("name", LISTS)
def test_the_published_list_passes(shared: Path, name: str) -> None:
    frame, classes = published(shared, name)
    (check,) = judge("published", published_table(frame, classes, name), published_rules(name)).checks
    assert check.success
    assert check.rows == len(classes) + 3


@pytest.mark.parametrize("name", LISTS)
def test_any_difference_is_named(shared: Path, name: str) -> None:
    frame, classes = published(shared, name)
    row = frame.index[frame["labels"].map(lambda labels: 5 not in labels)][0]
    frame.at[row, "labels"] = [*frame.at[row, "labels"], 5]
    frame = frame.iloc[:-1]
    (check,) = judge("published", published_table(frame, classes, name), published_rules(name)).checks
    assert {(item["class"], item["split"]) for item in check.offending} == {
        (classes.names[5], "train"),
        ("all pictures", "test"),
    }
    assert check.severity == "critical"


def test_other_classes_are_named(shared: Path) -> None:
    frame, classes = published(shared, "voc-lt")
    (check,) = judge(
        "published", published_table(frame, make_classes(classes.names[:19]), "voc-lt"), published_rules("voc-lt")
    ).checks
    assert [(item["class"], item["value"]) for item in check.offending] == [
        ("number of classes", "19 here, published 20")
    ]
