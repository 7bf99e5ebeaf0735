"""Images that people labelled later join annotations of any format; every mistake in their table is named."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from capnet.config import parse
from capnet.data.annotations.added import add_images
from capnet.data.annotations.paths import DataFolder
from capnet.data.annotations.reading import read_annotations
from capnet.data.annotations.rows import Annotations
from capnet.errors import DataError

TABLE = "path,labels,group\na.jpg,fox|owl,north\nb.jpg,,north\n"
IN_BOTH = "is in the annotations already\n  where: added.csv row 2, first in labels.csv row 2"


def read(folder: Path, text: str, **settings: object) -> tuple[Annotations, int]:
    """The annotations of a folder with ``text`` as its added.csv."""
    (folder / "added.csv").write_text(text)
    params = parse({"data": {"format": "csv"}} | settings)
    data = DataFolder(folder)
    return add_images(read_annotations(data, params), data, params.ingest)


def problems(folder: Path, text: str) -> list[str]:
    (folder / "labels.csv").write_text(TABLE)
    return [str(problem) for problem in read(folder, text)[0].problems]


def test_rows_come_behind_those_of_the_table(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(TABLE)
    text = "path,labels,unknown,split,group\n./new//c.jpg,owl,fox,train,south\nnew/d.jpg,,,,\n"
    annotations, added = read(tmp_path, text)
    rows = annotations.rows
    assert (added, annotations.problems) == (2, [])
    assert annotations.classes.names == ["fox", "owl"]
    assert rows["path"].tolist() == ["a.jpg", "b.jpg", "new/c.jpg", "new/d.jpg"]
    assert rows["image_id"].tolist() == ["a", "b", "new/c", "new/d"]
    assert rows["labels"].tolist() == [[0, 1], [], [1], []]
    assert rows["unknown"].tolist() == [[], [], [0], []]
    assert rows["given_split"].fillna("").tolist() == ["", "", "train", ""]
    assert rows["group"].fillna("").tolist() == ["north", "north", "south", ""]
    assert [annotations.where(row) for row in (0, 3)] == ["labels.csv row 2", "added.csv row 3"]
    (warning,) = annotations.warnings
    assert warning.startswith("1 of 2 images of added.csv have no group")


def test_one_table_of_all_rows_gives_the_same(tmp_path: Path) -> None:
    lines = TABLE + "new/c.jpg,owl,south\nnew/d.jpg,,south\n"
    (tmp_path / "labels.csv").write_text(lines)
    params = parse({"data": {"format": "csv"}})
    expected = read_annotations(DataFolder(tmp_path), params).rows
    (tmp_path / "labels.csv").write_text(TABLE)
    result = read(tmp_path, "path,labels,group\nnew/c.jpg,owl,south\nnew/d.jpg,,south\n")[0].rows
    pd.testing.assert_frame_equal(result.drop(columns="where"), expected.drop(columns="where"))


def test_images_join_a_coco_file(tmp_path: Path) -> None:
    coco = {
        "images": [{"id": 1, "file_name": "1.jpg", "width": 40, "height": 30}],
        "categories": [{"id": 7, "name": "owl"}, {"id": 9, "name": "fox"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 9, "bbox": [0, 0, 9, 9], "area": 81, "iscrowd": 0}],
    }
    (tmp_path / "mine.json").write_text(json.dumps(coco))
    settings = {"coco": {"train": "mine.json", "train_images": "images", "test": ""}}
    annotations, added = read(
        tmp_path, "path,labels,width\nnew/2.jpg,fox|owl,\nnew/3.jpg,,64\n", data={"format": "coco"}, ingest=settings
    )
    rows = annotations.rows
    names = [[annotations.classes.names[c] for c in labels] for labels in rows["labels"]]
    assert (added, annotations.problems) == (2, [])
    assert list(zip(rows["path"], names, strict=True)) == [
        ("images/1.jpg", ["fox"]),
        ("new/2.jpg", ["owl", "fox"]),
        ("new/3.jpg", []),
    ]
    assert (
        rows["labels"].dtype
        == read_annotations(DataFolder(tmp_path), parse({"data": {"format": "coco"}, "ingest": settings}))
        .rows["labels"]
        .dtype
    )


def test_images_that_the_format_leaves_out_may_be_added(tmp_path: Path) -> None:
    traps = {
        "images": [{"id": n, "file_name": f"{n}.jpg"} for n in range(3)],
        "categories": [{"id": 1, "name": "fox"}],
        "annotations": [{"id": 1, "image_id": 0, "category_id": 1}],
    }
    (tmp_path / "traps.json").write_text(json.dumps(traps))
    data, ingest = {"format": "camera_traps"}, {"camera_traps": {"file": "traps.json", "images": ""}}
    for text, left in (("1.jpg,fox\n", ["2.jpg"]), ("1.jpg,fox\n2.jpg,\n", [])):
        annotations, _ = read(tmp_path, f"path,labels\n{text}", data=data, ingest=ingest)
        assert [path for images in annotations.left_out.values() for _, path in images] == left
        assert len(annotations.left_out) == len(left)


@pytest.mark.parametrize(
    ("row", "what"),
    [
        (
            "./a.jpg,fox",
            "path 'a.jpg' is in the annotations already\n  where: added.csv row 2, first in labels.csv row 2",
        ),
        (
            "a.png,fox",
            "image id 'a' is in the annotations already\n  where: added.csv row 2, first in labels.csv row 2",
        ),
        ("c.jpg,foxx", "label 'foxx'"),
        ("../c.jpg,fox", "leaves the data folder"),
        ("c.jpg,fox\nc.jpg,owl", "path 'c.jpg' appears twice"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, row: str, what: str) -> None:
    (problem,) = problems(tmp_path, f"path,labels\n{row}\n")
    assert what in problem
    assert "added.csv" in problem


@pytest.mark.parametrize("text", ["", "path,labels\n", "image;labels\nc.jpg;fox\n", "path\nc.jpg\n"])
def test_a_table_that_says_nothing_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "labels.csv").write_text(TABLE)
    with pytest.raises(DataError, match=r"added\.csv"):
        read(tmp_path, text)


def test_without_a_table_nothing_changes(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(TABLE)
    params = parse({"data": {"format": "csv"}})
    annotations = read_annotations(DataFolder(tmp_path), params)
    assert add_images(annotations, DataFolder(tmp_path), params.ingest) == (annotations, 0)
    (tmp_path / "added.csv").symlink_to("nowhere")
    with pytest.raises(DataError):
        add_images(annotations, DataFolder(tmp_path), params.ingest)
