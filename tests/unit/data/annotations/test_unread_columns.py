"""Columns of a label table, and keys of images in a COCO file, that nothing reads, although they may say something that
counts.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from unit.data.annotations.csv_tables import accept, wide, write
from unit.data.native import box, write_json

from capnet.config import Ingest
from capnet.data.annotations.paths import DataFolder
from capnet.data.annotations.readers import camera_traps, coco

LICENCE = {"license": 3, "flickr_url": "http://a/9", "coco_url": "http://b/9", "date_captured": "2013-11-14"}
ONE_FILE = {"train": "train.json", "test": ""}
TWO_FILES = {"train": "train.json", "test": "test.json"}


@pytest.mark.parametrize(
    ("name", "cells", "named"),
    [
        ("subset", ["train", "test", "train"], True),
        ("phase", ["Training", "Validation", ""], True),
        ("partition", ["TRAIN", "valid", "test"], True),
        ("vehicle", ["train", "train", ""], False),
        ("vehicle", ["train", "car", "test"], False),
        ("subset", ["test", "val", "test"], False),
        ("comment", ["", "", ""], False),
    ],
)
@pytest.mark.parametrize("is_wide", [False, True])
def test_a_column_that_may_be_the_split_is_named(
    tmp_path: Path, name: str, cells: list[str], named: bool, is_wide: bool
) -> None:
    labels, values = ("fox,deer,bird", ["1,0,0", "0,1,0", "0,0,1"]) if is_wide else ("labels", ["fox", "deer", "bird"])
    rows = [f"{number}.jpg,{value},{cell}" for number, (value, cell) in enumerate(zip(values, cells, strict=True))]
    table = "\n".join([f"path,{labels},{name}", *rows]) + "\n"
    warnings = accept(wide(tmp_path, table) if is_wide else write(tmp_path, table)).warnings
    assert any(f"column {name!r} is not read. If it says which split" in warning for warning in warnings) == named
    assert len(warnings) == named


def test_with_a_column_split_no_other_is_named(tmp_path: Path) -> None:
    table = "path,labels,split,before\na.jpg,fox,train,test\nb.jpg,fox,test,train\n"
    assert accept(write(tmp_path, table)).warnings == []


def coco_warnings(root: Path, images: list[dict[str, Any]], files: dict[str, str], **settings: Any) -> list[str]:
    """Write the images into each file of ``files``, and read them as COCO; what it warns of."""
    for number, name in enumerate(filter(None, files.values())):
        numbered = [{"id": n, "file_name": f"{number}/{n}.jpg", **image} for n, image in enumerate(images)]
        write_json(root / name, images=numbered, annotations=[box(0, 1)], categories=[{"id": 1, "name": "fox"}])
    result = coco.read(DataFolder(root), Ingest.model_validate({"coco": files} | settings))
    assert result.problems == []
    return [*result.warnings]


@pytest.mark.parametrize(
    ("images", "named"),
    [
        ([{"location": "cam 1", "seq_id": "a"}, {"location": 2}], "keys 'location' and 'seq_id' of 2 images are"),
        ([{"location": 0}, {}], "key 'location' of 1 image is"),
        ([{"seq_id": "a", "patient_id": 7}], "key 'seq_id' of 1 image is"),
    ],
)
def test_keys_of_camera_traps_in_a_coco_file_are_named(
    tmp_path: Path, images: list[dict[str, Any]], named: str
) -> None:
    """Frames of one camera came into train and test without a warning."""
    first, *_ = coco_warnings(tmp_path, images, ONE_FILE)
    assert first == (
        f"train.json: {named} not read: images that belong together may get into two splits, and the figures flatter."
        " data.format: camera_traps reads location as the group and seq_id as the sequence, of one file, and leaves out"
        " images without an annotation"
    )


def test_camera_traps_reads_the_keys_that_are_named(tmp_path: Path) -> None:
    assert coco_warnings(tmp_path, [{"location": 7, "seq_id": "a"}], ONE_FILE)
    settings = Ingest.model_validate({"camera_traps": {"file": "train.json", "blank": []}})
    rows = camera_traps.read(DataFolder(tmp_path), settings).rows
    assert rows[["group", "sequence"]].to_numpy().tolist() == [["7", "a"]]


@pytest.mark.parametrize("key", ["patient_id", "PatientID", "Camera", "site"])
def test_other_keys_of_a_coco_file_that_may_be_groups_are_named(tmp_path: Path, key: str) -> None:
    (warning,) = coco_warnings(tmp_path, [{key: 7}, {}], ONE_FILE)
    assert warning == (
        f"train.json: key {key!r} of 1 image is not read. If images with the same value belong together, call it"
        " 'location', and set data.format: camera_traps, which reads that as the group, of one file, and leaves out"
        " images without an annotation: else they get into two splits, and the figures flatter"
    )


@pytest.mark.parametrize("key", ["location", "seq_id", "patient_id"])
@pytest.mark.parametrize("value", [None, "", True, 1.5, {"x": 1}])
def test_keys_without_a_name_in_them_and_those_of_coco_are_not_named(tmp_path: Path, key: str, value: object) -> None:
    others = ("patient_sex", "camera_model", "camera_height", "location_type", "site_url", "slideshow")
    image = LICENCE | dict.fromkeys(others, "f") | {key: value, "extra": {"name": "a"}}
    assert coco_warnings(tmp_path, [image], TWO_FILES) == []


def test_hostile_keys_fill_neither_the_memory_nor_the_screen(tmp_path: Path) -> None:
    words = map("".join, itertools.islice(itertools.product(*zip("camera", "CAMERA", strict=True)), 50))
    images = [{word: 1} for word in words]
    assert len(coco_warnings(tmp_path, images, ONE_FILE)) == 20
    (warning,) = coco_warnings(tmp_path, [*images, {"location": 1}], ONE_FILE)
    assert warning.startswith("train.json: key 'location' of 1 image")


@pytest.mark.parametrize(
    ("files", "splits", "settings", "is_named"),
    [
        (ONE_FILE, ["train", "Val"], {}, True),
        (ONE_FILE, ["train", "train", ""], {}, False),
        (ONE_FILE, ["train", "river"], {}, False),
        (ONE_FILE, ["train", "test"], {"train_list": "train.txt"}, False),
        (TWO_FILES, ["train", "test"], {}, False),
    ],
)
def test_a_key_that_is_the_split_is_named(
    tmp_path: Path, files: dict[str, str], splits: list[str], settings: dict[str, str], is_named: bool
) -> None:
    warnings = coco_warnings(tmp_path, [{"split": split} for split in splits], files, **settings)
    assert [warning.startswith("key 'split' of images is not read") for warning in warnings] == [True] * is_named
