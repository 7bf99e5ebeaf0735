"""The split stage on published data and lists: VOC-LT, COCO-LT, and lists that do not fit."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from capnet.config import Pareto, Validation
from capnet.contracts import read_classes
from capnet.data.splits.id_lists import write_id_list
from capnet.errors import ConfigError, DataError
from tests.unit.steps.manifests import manifest, split


def test_voc_lt_comes_out_of_the_stage(shared: Path, tmp_path: Path) -> None:
    ids: list[str] = []
    labels: list[list[int]] = []
    splits: list[str] = []
    for name, part in (("voc2012_trainval", "train"), ("voc2007_test", "test")):
        with open(shared / f"data/labels/{name}.csv") as file:
            for row in csv.DictReader(file):
                ids.append(row["image"])
                labels.append([int(c) for c in row["labels"].split()])
                splits.append(part)
    order = np.random.default_rng(0).permutation(len(ids))  # the manifest's order must not matter
    source = manifest(tmp_path / "manifest", labels, 20, splits=splits, ids=ids, order=order)
    frame, decisions = split(
        source,
        tmp_path / "split",
        method="pareto",
        pareto=Pareto(max=800, min=1),
        validation=Validation(source="none"),
        benchmark="voc-lt",
    )
    expected = json.loads((shared / "reference/split_fixture.json").read_text())["voc"]
    train = frame[frame["split"] == "train"]
    assert (
        hashlib.sha256("\n".join(train["image_id"]).encode()).hexdigest() == expected["sha256_ids_in_published_order"]
    )
    classes = read_classes(tmp_path / "split/classes.json")
    assert classes.train_counts.tolist() == expected["class_counts"]
    for bucket, members in expected["groups"].items():
        assert [c for c, item in enumerate(classes.items) if item.bucket == bucket] == members
    assert [len(expected["groups"][bucket]) for bucket in ("head", "medium", "tail")] == [6, 6, 8]
    assert (frame["split"] == "test").sum() == expected["test_images"]
    assert decisions["rows"] == {"train": 1142, "val": 0, "test": 4952, "left_over": 11540 - 1142}
    assert decisions["extra_labels"] is False
    assert decisions["pareto"]["reference"] == expected["ref_dist"]
    assert decisions["pareto"]["steps"] == expected["draw_steps_in_rank_order"]
    assert decisions["pareto"]["class_order"] == [f"class {c}" for c in expected["class_rank"]]


def test_the_published_list_gives_the_same_rows_as_the_draw(shared: Path, tmp_path: Path) -> None:
    with open(shared / "data/labels/voc2012_trainval.csv") as file:
        rows = list(csv.DictReader(file))
    with open(shared / "data/labels/voc_lt_train.csv") as file:
        published = [row["image"] for row in csv.DictReader(file)]
    source = manifest(
        tmp_path / "manifest",
        [[int(c) for c in row["labels"].split()] for row in rows],
        20,
        ids=[row["image"] for row in rows],
    )
    write_id_list(source, "train", published)
    frame, decisions = split(source, tmp_path / "split", method="published", validation=Validation(source="pool"))
    assert frame[frame["split"] == "train"]["image_id"].tolist() == published
    assert decisions["rows"]["val"] == int(0.2 * 1142)
    assert decisions["validation_source"] == "pool"
    assert decisions["extra_labels"] is True
    assert decisions["test_source"] == "share"
    assert not set(frame[frame["split"] != "train"]["image_id"]) & set(published)


def test_published_needs_a_list_of_this_manifest(tmp_path: Path) -> None:
    source = manifest(tmp_path / "manifest", [[0]] * 30, 1)
    with pytest.raises(ConfigError, match=r"ingest\.train_list is empty"):
        split(source, tmp_path / "split", method="published")
    write_id_list(source, "train", ["p000001", "p000099"])
    write_id_list(source, "test", ["elephant"])
    with pytest.raises(DataError) as caught:
        split(source, tmp_path / "split", method="published")
    assert [(problem.what, problem.where) for problem in caught.value.problems] == [
        ("image id 'p000099' is listed and has no row", "train_list.txt"),
        ("image id 'elephant' is listed and has no row", "test_list.txt"),
    ]


@pytest.mark.parametrize("listed", [2, 10])
def test_given_test_rows_that_the_list_lacks_are_counted(tmp_path: Path, listed: int) -> None:
    """As with two files of COCO and a list of some images of the second."""
    source = manifest(tmp_path / "manifest", [[0], []] * 15, 1, splits=["train"] * 20 + ["test"] * 10)
    ids = [f"p{number:06d}" for number in range(30)]
    write_id_list(source, "train", ids[:20])
    write_id_list(source, "test", ids[20 : 20 + listed])
    frame, decisions = split(source, tmp_path / "split", method="published", validation=Validation(source="none"))
    assert (frame["split"] == "test").sum() == 10
    warning = "8 of 10 test images are given as test and not in ingest.test_list"
    assert [text.partition(":")[0] for text in decisions["warnings"]] == ([warning] if listed == 2 else [])


def test_coco_lt_published_list_gives_its_counts_and_groups(shared: Path, tmp_path: Path) -> None:
    ids: list[str] = []
    labels: list[list[int]] = []
    lists: dict[str, list[str]] = {"train": [], "test": []}
    for name, part in (("coco_lt_train", "train"), ("coco2017_val", "test")):
        with open(shared / f"data/labels/{name}.csv") as file:
            for row in csv.DictReader(file):
                ids.append(row["image"])
                labels.append([int(c) for c in row["labels"].split()])
                lists[part].append(row["image"])
    ids += [f"{number:012d}" for number in range(1, 100)]  # rows of train2017 that the list leaves out
    labels += [[number % 80] for number in range(1, 100)]
    source = manifest(tmp_path / "manifest", labels, 80, ids=ids)
    for part, listed in lists.items():
        write_id_list(source, part, listed)
    frame, decisions = split(
        source, tmp_path / "split", method="published", validation=Validation(source="none"), benchmark="coco-lt"
    )
    expected = json.loads((shared / "reference/split_fixture.json").read_text())["coco"]
    train = frame[frame["split"] == "train"]["image_id"].tolist()
    assert (
        hashlib.sha256("\n".join(image.lstrip("0") for image in train).encode()).hexdigest()
        == expected["sha256_ids_in_published_order"]
    )
    assert decisions["rows"] == {"train": 1909, "val": 0, "test": 5000, "left_over": 99}
    classes = read_classes(tmp_path / "split/classes.json")
    assert classes.train_counts.tolist() == expected["class_counts"]
    for bucket, members in expected["groups"].items():
        assert [c for c, item in enumerate(classes.items) if item.bucket == bucket] == members
    assert [len(expected["groups"][bucket]) for bucket in ("head", "medium", "tail")] == [22, 33, 25]
    blank = frame["labels"].map(len) == 0
    assert (blank & (frame["split"] == "test")).sum() == expected["test_images_without_label"]
    write_id_list(source, "train", [*lists["train"][:-1], ids[-1]])
    with pytest.raises(DataError) as caught:
        split(source, tmp_path / "again", method="published", validation=Validation(source="none"), benchmark="coco-lt")
    different = caught.value.problems[0]
    lost, gained = set(labels[1908]), set(labels[-1])
    assert different.what == f"{len(lost ^ gained)} of 80 training counts are not the published ones"


def test_the_benchmark_is_refused_for_other_classes_and_rows(tmp_path: Path) -> None:
    source = manifest(tmp_path / "manifest", [[0]] * 30, 1)
    with pytest.raises(DataError) as caught:
        split(source, tmp_path / "split", benchmark="voc-lt", validation=Validation(source="none"))
    assert [problem.what for problem in caught.value.problems] == [
        "24 train rows, published are 1142",
        "6 test rows, published are 4952",
        "1 classes, published are 20",
    ]
