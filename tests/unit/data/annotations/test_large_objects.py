"""One image, number, element or row of a stranger's that fills the memory: refused before it is built."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faults.bounded import bounded
from unit.data.native import jpeg, write_voc

from capnet.config import parse
from capnet.data.annotations import coco_json, corrections
from capnet.data.annotations.corrections import apply_corrections, read_corrections
from capnet.data.annotations.paths import DataFolder
from capnet.data.annotations.readers import voc
from capnet.data.annotations.reading import read_annotations
from capnet.errors import MOST, DataError

SETTINGS: dict[str, Any] = {"coco": {"coco": {"train": "annotations.json", "test": ""}}, "camera_traps": {}}
COCO = """{{"images": [{{"id": 1, "file_name": "a.jpg"{image}}}],
 "annotations": [{{"image_id": 1, "category_id": 1{annotation}}}],
 "categories": [{{"id": 1, "name": "cat"{category}}}]{rest}}}"""
PARTS = dict.fromkeys(("image", "annotation", "category", "rest"), "")
LARGE: dict[str, Callable[[], dict[str, str]]] = {
    "a polygon of 10 million numbers": lambda: {"annotation": ', "segmentation": [[' + "1.5," * 9_999_999 + "1]]"},
    "a box of 10 million numbers": lambda: {"annotation": ', "bbox": [' + "1.5," * 9_999_999 + "1]"},
    "10 million empty lists": lambda: {"annotation": ', "segmentation": [' + "[]," * 9_999_999 + "[]]"},
    "a million keys": lambda: {"image": "".join(f', "key{n}": 1' for n in range(1_500_000))},
    "ten million synonyms": lambda: {"category": ', "synonyms": [' + '"a",' * 9_999_999 + '"a"]'},
    "long texts": lambda: {"annotation": ', "texts": [' + f'"{"a" * 3_900_000}",' * 15 + '"a"]'},
    "a number of 100 million digits": lambda: {"annotation": ', "area": ' + "1" * 100_000_000},
    "such a fraction": lambda: {"annotation": ', "area": 0.' + "1" * 100_000_000},
}


def refuse(folder: Path, name: str, ingest: dict[str, Any]) -> None:
    raise DataError(
        problems=read_annotations(DataFolder(folder), parse({"data": {"format": name}, "ingest": ingest})).problems
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
@pytest.mark.parametrize("reader", SETTINGS)
def test_an_object_that_fills_the_memory_is_refused(tmp_path: Path, reader: str, name: str) -> None:
    (tmp_path / "annotations.json").write_text(COCO.format_map(PARTS | LARGE[name]()))
    done = bounded(lambda: refuse(tmp_path, reader, SETTINGS[reader]))
    assert done.kind == "refused", done
    assert done.has_three_parts
    assert "an object of more than" in done.text or "a number of thousands of digits" in done.text
    assert done.seconds < 10, done
    assert done.megabytes < 150


def test_a_large_part_that_is_no_object_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coco_json, "BUFFER", 1000)
    monkeypatch.setattr(coco_json, "MOST_OBJECT", 5000)
    texts = {"annotation": ', "segmentation": [[' + "1.5," * 900 + "1]]", "rest": ', "notes": [' + "1," * 50_000 + "1]"}
    (tmp_path / "annotations.json").write_text(COCO.format_map(PARTS | texts))
    read = read_annotations(DataFolder(tmp_path), parse({"data": {"format": "camera_traps"}}))
    assert not read.problems
    assert [list(labels) for labels in read.rows["labels"]] == [[0]]


def test_a_document_type_with_default_attributes_is_refused(tmp_path: Path) -> None:
    write_voc(tmp_path, "VOC2012", "trainval", {"a": [1]}, jpeg())
    attributes = " ".join(f'b{n} CDATA "v"' for n in range(25_000))
    elements = "<a/>" * 120_000
    path = tmp_path / "VOC2012/Annotations/a.xml"
    path.write_text(f"<!DOCTYPE x [<!ATTLIST a {attributes}>]><annotation>{elements}</annotation>")
    params = parse({"ingest": {"voc": {"train": "VOC2012/trainval", "test": ""}}})

    def read() -> None:
        raise DataError(problems=voc.read(DataFolder(tmp_path), params.ingest).problems)

    done = bounded(read)
    assert done.kind == "refused", done
    assert "document type" in done.text
    assert done.has_three_parts
    assert done.megabytes < 50


@pytest.mark.slow
@pytest.mark.parametrize("row", ["images/a.jpg,dog,maybe", "images/{}.jpg,dog,yes"])
def test_corrections_that_are_wrong_in_every_row_are_refused(tmp_path: Path, row: str) -> None:
    (tmp_path / "labels.csv").write_text("path,labels\nimages/a.jpg,dog\n")
    path = tmp_path / "corrections.csv"
    path.write_text("path,class,label\n" + "".join(row.replace("{}", str(n)) + "\n" for n in range(1_000_000)))

    def read() -> None:
        annotations = read_annotations(DataFolder(tmp_path), parse({}))
        problems = apply_corrections(annotations, path)[1]
        assert len(problems) <= MOST
        raise DataError(problems=problems)

    done = bounded(read)
    assert done.kind == "refused", done
    assert done.is_bounded, done
    assert done.megabytes < 400


def test_corrections_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corrections, "MOST_CORRECTIONS", 3)
    path = tmp_path / "corrections.csv"
    path.write_text("path,class,label\n" + "".join(f"{n}.jpg,dog,yes\n" for n in range(3)))
    assert not read_corrections(path)[2]
    path.write_text(path.read_text() + "3.jpg,dog,yes\n")
    assert [problem.what for problem in read_corrections(path)[2]] == ["more than 3 corrections"]


@pytest.mark.slow
def test_columns_that_nobody_reads_are_not_kept(tmp_path: Path) -> None:
    columns = 1000
    (tmp_path / "labels.csv").write_text("path,labels\nimages/a.jpg,c1\n")
    head = ",".join(["name", *(f"x{n}" for n in range(columns))])
    (tmp_path / "classes.csv").write_text(head + "\n" + "".join(f"c{n}" + ",x" * columns + "\n" for n in range(10_000)))
    done = bounded(lambda: read_annotations(DataFolder(tmp_path), parse({})))
    assert done.kind == "done", done
    assert done.megabytes < 60, done
