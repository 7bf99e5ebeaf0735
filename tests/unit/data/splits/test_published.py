"""Published counts: the real VOC-LT and COCO-LT lists pass, one label more or one picture less does not."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from capnet.contracts import Classes, label_matrix, make_classes
from capnet.data.splits.published import check_benchmark
from capnet.errors import DataError

LISTS = {
    "voc-lt": ("voc_lt_train.csv", "voc20_classes.txt", 4952),
    "coco-lt": ("coco_lt_train.csv", "coco80_classes.txt", 5000),
}


def published(shared: Path, name: str) -> tuple[np.ndarray, Classes, dict[str, int]]:
    """The labels of the published training list itself, bool [row, class], its classes, and the rows of both splits."""
    train, names, test = LISTS[name]
    with open(shared / "data/labels" / train, newline="") as file:
        labels = [[int(label) for label in row["labels"].split()] for row in csv.DictReader(file)]
    classes = make_classes((shared / "data/labels" / names).read_text().split("\n")[: 20 if name == "voc-lt" else 80])
    return label_matrix(labels, len(classes)), classes, {"train": len(labels), "test": test}


@pytest.mark.parametrize("name", LISTS)
def test_the_published_list_passes(shared: Path, name: str) -> None:
    labels, classes, rows = published(shared, name)
    check_benchmark(name, classes, labels.sum(axis=0), rows)


@pytest.mark.parametrize("name", LISTS)
def test_any_difference_is_named(shared: Path, name: str) -> None:
    labels, classes, rows = published(shared, name)
    before = int(labels[:, 5].sum())
    labels[np.flatnonzero(~labels[:, 5])[0], 5] = True
    with pytest.raises(DataError) as caught:
        check_benchmark(name, classes, labels.sum(axis=0), rows | {"test": rows["test"] - 1})
    assert [(problem.what, problem.where) for problem in caught.value.problems] == [
        (f"{rows['test'] - 1} test rows, published are {rows['test']}", f"split.benchmark = {name}"),
        (
            f"1 of {len(classes)} training counts are not the published ones",
            f"{classes.names[5]}: {before + 1} instead of {before}",
        ),
    ]
    assert caught.value.exit_code == 3


def test_other_classes_are_named(shared: Path) -> None:
    labels, classes, rows = published(shared, "voc-lt")
    with pytest.raises(DataError, match="19 classes, published are 20"):
        check_benchmark("voc-lt", make_classes(classes.names[:19]), labels[:, :19].sum(axis=0), rows)


def test_without_a_benchmark_nothing_is_compared() -> None:
    check_benchmark("none", make_classes(["cat"]), np.array([1]), {"train": 1, "test": 1})


def test_what_to_do_names_the_settings_that_take_a_published_list() -> None:
    with pytest.raises(DataError) as caught:
        check_benchmark("coco-lt", make_classes(["cat"]), np.array([1]), {"train": 1, "test": 5000})
    assert all("ingest.train_list with split.method: published" in one.todo for one in caught.value.problems)
