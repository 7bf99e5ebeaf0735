"""Labels of added images that are numbers: rows of classes.csv, and no ids of the categories of a JSON file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from capnet.config import parse
from capnet.data.annotations.added import add_images
from capnet.data.annotations.paths import DataFolder
from capnet.data.annotations.reading import read_annotations
from capnet.data.annotations.rows import Annotations


def read(folder: Path, name: str) -> Annotations:
    (folder / "added").mkdir()
    (folder / "added" / "july.csv").write_text("path,labels\nc.jpg,1\n")
    params, data = parse({"data": {"format": name}}), DataFolder(folder)
    return add_images(read_annotations(data, params), data, params.ingest)[0]


@pytest.mark.parametrize("listed", [[], ["owl", "fox"]])
def test_ids_of_categories_are_refused(tmp_path: Path, listed: list[str]) -> None:
    """1 is the fox of the file, and was read as the second class, the owl."""
    names = ["empty", "fox", "owl"]
    traps = {
        "images": [{"id": "a", "file_name": "a.jpg", "location": "north"}],
        "categories": [{"id": number, "name": name} for number, name in enumerate(names)],
        "annotations": [{"id": 1, "image_id": "a", "category_id": 1}],
    }
    (tmp_path / "annotations.json").write_text(json.dumps(traps))
    if listed:  # its rows are in another order than the file's classes
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
