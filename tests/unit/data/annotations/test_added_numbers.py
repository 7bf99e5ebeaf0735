"""Labels of added images that could mean other classes: numbers, which are rows of classes.csv and no ids of the
categories of a JSON file, and names with the separator of labels.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from capnet.commands.label_images import labelled_before
from capnet.config import parse
from capnet.data.annotations.added import add_images
from capnet.data.annotations.paths import DataFolder
from capnet.data.annotations.reading import read_annotations
from capnet.data.annotations.rows import Annotations
from capnet.errors import DataError


def read(folder: Path, name: str) -> Annotations:
    (folder / "added").mkdir()
    (folder / "added" / "july.csv").write_text("path,labels\nc.jpg,1\n")
    params, data = parse({"data": {"format": name}}), DataFolder(folder)
    return add_images(read_annotations(data, params), data, params.ingest)[0]


@pytest.mark.parametrize("listed", [[], ["owl", "fox"], ["fox", "owl"]])
def test_ids_of_categories_are_refused(tmp_path: Path, listed: list[str]) -> None:
    """1 is the fox of the file, and was read as the second class, the owl."""
    names = ["empty", "fox", "owl"]
    traps = {
        "images": [{"id": "a", "file_name": "a.jpg", "location": "north"}],
        "categories": [{"id": number, "name": name} for number, name in enumerate(names)],
        "annotations": [{"id": 1, "image_id": "a", "category_id": 1}],
    }
    (tmp_path / "annotations.json").write_text(json.dumps(traps))
    if listed:
        (tmp_path / "classes.csv").write_text("\n".join(["name", *listed]))
    (problem,) = read(tmp_path, "camera_traps").problems
    assert (problem.what, problem.where) == (
        "labels are numbers, and nothing says which classes these are",
        "added/july.csv",
    )


def test_rows_of_classes_csv_are_read(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("path,labels\na.jpg,fox\nb.jpg,owl\n")
    (tmp_path / "classes.csv").write_text("name\nowl\nfox\n")
    annotations = read(tmp_path, "csv")
    assert (annotations.problems, annotations.rows["labels"].tolist()) == ([], [[1], [0], [1]])


def test_numbers_of_another_column_and_of_classes_that_nobody_listed_are_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("path,labels\na.jpg,fox\nb.jpg,owl\n")
    for text in ("", "name,id\nfox,1\nowl,2\n"):
        if text:
            (tmp_path / "classes.csv").write_text(text)
            (tmp_path / "added" / "july.csv").unlink()
            (tmp_path / "added").rmdir()
        assert len(read(tmp_path, "csv").problems) == 1


def test_a_class_that_its_name_divides_into_others_is_refused(tmp_path: Path) -> None:
    """'fox|owl' was read as fox and owl."""
    names = ["fox", "owl", "fox|owl"]
    coco = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "categories": [{"id": number, "name": name} for number, name in enumerate(names)],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 2, "bbox": [0, 0, 9, 9]}],
    }
    (tmp_path / "mine.json").write_text(json.dumps(coco))
    settings = {"data": {"format": "coco"}, "ingest": {"coco": {"train": "mine.json", "test": ""}}}
    params, data = parse(settings), DataFolder(tmp_path)
    annotations = read_annotations(data, params)
    assert annotations.problems == add_images(annotations, data, params.ingest)[0].problems == []
    with pytest.raises(DataError, match=r"'fox\|owl' contains the separator of labels"):
        labelled_before(data, params)
    (tmp_path / "added").mkdir()
    (tmp_path / "added" / "july.csv").write_text("path,labels\nc.jpg,fox|owl\n")
    with pytest.raises(DataError, match=r"'fox\|owl' contains the separator of labels"):
        add_images(annotations, data, params.ingest)
    other = parse({**settings, "ingest": {**settings["ingest"], "separator": ";"}})
    assert add_images(annotations, data, other.ingest)[0].rows["labels"].tolist() == [[2], [2]]


def test_a_table_with_another_separator_than_the_annotations_is_to_be_rewritten_first(tmp_path: Path) -> None:
    """A table of `capnet predict` has '|'. The advice was to set that, and then labels.csv was refused."""
    (tmp_path / "labels.csv").write_text('path,labels\na.jpg,"fox, owl"\nb.jpg,fox\n')
    (tmp_path / "added").mkdir()
    (tmp_path / "added" / "july.csv").write_text("path,labels\nc.jpg,fox|owl\n")
    params, data = parse({"data": {"format": "csv"}, "ingest": {"separator": ","}}), DataFolder(tmp_path)
    (problem,) = add_images(read_annotations(data, params), data, params.ingest)[0].problems
    assert problem.todo.startswith("labels are separated by ',': rewrite the cell")
    assert problem.todo.endswith("or set ingest.separator to '|' if all tables have that")
