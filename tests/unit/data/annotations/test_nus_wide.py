"""The NUS-WIDE reader: official lists and clean lists, the real test labels, files that do not fit."""

from __future__ import annotations

import csv
import gzip
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from unit.data.native import write_nus_wide

from capnet.config import Ingest
from capnet.data.annotations.paths import DataFolder
from capnet.data.annotations.readers import nus_wide
from capnet.data.annotations.readers.nus_wide import CLASSES
from capnet.data.annotations.rows import Annotations
from capnet.errors import DataError

ROWS = {"actor/0001_11.jpg": [0, 43], "zoo/0002_22.jpg": [], "zoo/0001_33.jpg": [80]}

NusWide = nus_wide.Settings


def read(root: Path, settings: Ingest) -> Annotations:
    return nus_wide.read(DataFolder(root), settings)


def official(root: Path, **more: object) -> Ingest:
    write_nus_wide(root, "Train", ROWS)
    write_nus_wide(root, "Test", {"zoo/0009_99.jpg": [1]})
    return Ingest(nus_wide=NusWide.model_validate(more))


def test_the_concepts_are_the_published_81(shared: Path) -> None:
    assert list(CLASSES) == (shared / "data/labels/nuswide81_classes.txt").read_text().split()


def test_official_lists(tmp_path: Path) -> None:
    result = read(tmp_path, official(tmp_path))
    assert result.problems == []
    assert result.rows["image_id"].tolist() == ["actor/0001_11", "zoo/0001_33", "zoo/0009_99"]
    assert result.rows["path"].tolist() == [
        "Flickr/actor/0001_11.jpg",
        "Flickr/zoo/0001_33.jpg",
        "Flickr/zoo/0009_99.jpg",
    ]
    assert result.rows["labels"].tolist() == [[0, 43], [80], [1]]
    assert result.rows["given_split"].tolist() == ["train", "train", "test"]
    assert result.left_out == {
        "no concept (ingest.nus_wide.keep_unlabelled)": [("zoo/0002_22", "Flickr/zoo/0002_22.jpg", None, None)]
    }
    kept = read(tmp_path, official(tmp_path, keep_unlabelled=True, images=""))
    assert kept.rows["labels"].tolist() == [[0, 43], [], [80], [1]]
    assert kept.rows["path"].iloc[1] == "zoo/0002_22.jpg"
    assert kept.left_out == {}


@pytest.mark.slow
def test_the_real_test_labels_are_read_within_ten_seconds(shared: Path, tmp_path: Path) -> None:
    shutil.copy(shared / "data/labels/nuswide81_test.csv.gz", tmp_path / "nus_test.csv.gz")
    rng = np.random.default_rng(0)
    # the train list is not public
    lines = "".join(f"made_{number}_m.jpg,{rng.integers(81)}\n" for number in range(3000))
    (tmp_path / "nus_train.csv").write_text("image,labels\n" + lines)
    start = time.perf_counter()
    result = read(tmp_path, Ingest(nus_wide=NusWide(lists="clean", clean_test="nus_test.csv.gz")))
    assert time.perf_counter() - start < 10
    assert result.problems == []
    test = result.rows[result.rows["given_split"] == "test"]
    assert (len(test), len(result.rows), len(result.classes)) == (50720, 53720, 81)
    with gzip.open(shared / "data/labels/nuswide81_test.csv.gz", "rt") as file:
        expected = {
            row["image"].removesuffix(".jpg"): [int(c) for c in row["labels"].split()] for row in csv.DictReader(file)
        }
    assert dict(zip(test["image_id"], test["labels"], strict=True)) == expected
    counts = np.bincount(np.concatenate(test["labels"].tolist()), minlength=81)
    assert (CLASSES[counts.argmin()], counts.min(), CLASSES[counts.argmax()], counts.max()) == ("map", 16, "sky", 18403)


def test_lists_that_do_not_fit_their_labels_are_refused(tmp_path: Path) -> None:
    settings = official(tmp_path)
    label = tmp_path / "Groundtruth/TrainTestLabels/Labels_bear_Train.txt"
    label.write_text("0\n1\n")
    with pytest.raises(DataError, match="2 lines for 3 images") as caught:
        read(tmp_path, settings)
    assert "Labels_bear_Train.txt" in caught.value.problems[0].where
    label.write_text("0\n2\n1\n")
    with pytest.raises(DataError, match="'2' where 0 or 1 belongs"):
        read(tmp_path, settings)
    label.unlink()
    with pytest.raises(DataError, match="cannot read a list") as caught:
        read(tmp_path, settings)
    assert "authors" in caught.value.problems[0].todo


def test_an_empty_list_is_refused_and_windows_lines_are_read(tmp_path: Path) -> None:
    settings = official(tmp_path)
    path = tmp_path / "ImageList/TrainImagelist.txt"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b" \r\n") + b"\r\n")
    assert read(tmp_path, settings).rows["image_id"].tolist() == ["actor/0001_11", "zoo/0001_33", "zoo/0009_99"]
    path.write_text("\n")
    with pytest.raises(DataError, match="a list of NUS-WIDE is empty"):
        read(tmp_path, settings)


def test_mistakes_in_clean_lists_are_named(tmp_path: Path) -> None:
    (tmp_path / "nus_test.csv").write_text("image,labels\na.jpg,0 81\nb.jpg,sky|cat\n../c.jpg,1\na.jpg,1\n")
    settings = Ingest(nus_wide=NusWide(lists="clean", clean_train=""))
    result = read(tmp_path, settings)
    assert [(problem.what, problem.where.split(",")[0]) for problem in result.problems] == [
        ("'81' is none of the 81 concepts", "nus_test.csv row 2"),
        ("path 'Flickr/../c.jpg' leaves the data folder", "nus_test.csv row 4"),
        ("path 'Flickr/a.jpg' appears twice", "nus_test.csv row 5"),
    ]
    assert [[CLASSES[c] for c in row] for row in result.rows["labels"]] == [["airport"], ["cat", "sky"]]
    assert result.rows["given_split"].tolist() == [None, None], "one list alone is no division"
    with pytest.raises(DataError, match="a clean list of NUS-WIDE is missing"):
        read(tmp_path, Ingest(nus_wide=NusWide(lists="clean")))
