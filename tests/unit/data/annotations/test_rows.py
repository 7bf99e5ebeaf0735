"""Rows of a reader: what cannot be a manifest is refused, and one row's mistake is that row's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from capnet.config import Ingest
from capnet.contracts import make_classes
from capnet.data.annotations.class_list import published_classes
from capnet.data.annotations.paths import DataFolder
from capnet.data.annotations.rows import LeftOutImage, RowList, make_rows
from capnet.errors import DataError

CLASSES = make_classes(["cat", "dog"])


def test_defaults_fill_what_a_format_does_not_have() -> None:
    rows = RowList("width")
    rows.add("./images//b.jpg", [1, 0, 1], "line 1")
    rows.add("c.jpg", [], "line 2", image_id="C", unknown=[1], group="site", width=40)
    made = make_rows(rows, CLASSES, [], left_out={"blurred": [LeftOutImage("a", "a.jpg")]})
    assert made.problems == []
    assert made.left_out == {"blurred": [("a", "a.jpg", None, None)]}
    assert made.rows["image_id"].tolist() == ["images/b", "C"]
    assert made.rows["path"].tolist() == ["images/b.jpg", "c.jpg"]
    assert made.rows["labels"].tolist() == [[0, 1], []]
    assert made.rows["unknown"].tolist() == [[], [1]]
    assert made.rows["group"].tolist() == [None, "site"]
    assert made.rows["width"].dtype == "Int32"
    assert "sequence" not in made.rows
    assert made.where(1) == "line 2"


def test_a_mistake_of_a_row_is_a_problem_and_the_other_rows_stay() -> None:
    rows = RowList(source="list.txt line {}")
    for number, path in enumerate(["a.jpg", "/etc/passwd", "../b.jpg", "a.jpg", "x/a.jpg"], start=1):
        rows.add(path, [0], number, image_id="x/a" if path == "a.jpg" else None)
    rows.add("d.jpg", [0], 6, unknown=[0, 1])
    rows.add("e.jpg", ["cat"], 7)
    rows.add(7, [0], 8)
    rows.add("g.jpg", [0], 9, heigth=4)
    made = make_rows(rows, CLASSES, [])
    assert made.rows["path"].tolist() == ["a.jpg", "d.jpg"]
    assert all(problem.todo for problem in made.problems)
    assert [(problem.what.split(":")[0], problem.where) for problem in made.problems] == [
        ("path '/etc/passwd' is absolute", "list.txt line 2"),
        ("path '../b.jpg' leaves the data folder", "list.txt line 3"),
        ("labels ['cat'], unknown ()", "list.txt line 7"),
        ("path 7 is no text", "list.txt line 8"),
        ("columns ['heigth'] are not in the reader's RowList", "list.txt line 9"),
        ("label 'cat' is both in labels and in unknown", "list.txt line 6"),
        ("path 'a.jpg' appears twice", "list.txt line 4, first in list.txt line 1"),
        ("image id 'x/a' appears twice", "list.txt line 5, first in list.txt line 1"),
    ]


def test_an_unpaired_surrogate_is_a_mistake_of_its_row() -> None:
    """The table cannot hold it, and writing it once ended in a traceback."""
    rows = RowList("sequence", source="line {}")
    rows.add("a/\ud800.jpg", [0], 1)
    rows.add("b.jpg", [0], 2, image_id="\udfff")
    rows.add("c.jpg", [0], 3, group="s\ud800", slice="night")
    rows.add("d.jpg", [0], 4, sequence="\ud83d\ude00 apart")
    rows.add("\U0001f600/é.jpg", [0], 5, group="Å", sequence="\U0001f600")
    made = make_rows(rows, CLASSES, [])
    assert [(problem.what.partition(" has an unpaired surrogate")[0], problem.where) for problem in made.problems] == [
        (r"path 'a/\ud800.jpg'", "line 1"),
        (r"image id '\udfff'", "line 2"),
        (r"group 's\ud800'", "line 3"),
        (r"sequence '\ud83d\ude00 apart'", "line 4"),
    ]


@pytest.mark.parametrize(("labels", "unknown"), [([2], []), ([-1], []), ([0], [2]), ([0], [-1])])
def test_a_label_that_is_no_class_is_refused(labels: list[int], unknown: list[int]) -> None:
    rows = RowList()
    rows.add("a.jpg", labels, 1, unknown=unknown)
    with pytest.raises(DataError, match="there are 2 classes"):
        make_rows(rows, CLASSES, [])


def test_codes_stand_for_classes() -> None:
    rows = RowList()
    rows.add("a.jpg", [0, 2, 1], 1)
    assert make_rows(rows, CLASSES, [], codes=[1, 0, -1]).rows["labels"].tolist() == [[0, 1]]


@pytest.mark.parametrize(
    ("column", "value", "fault"),
    [
        ("image_id", 3, "column image_id must hold text"),
        ("group", 7, "column group must hold text"),
        ("slice", ["day"], "column slice must hold text"),
        ("sequence", 7, "column sequence must hold text"),
        ("sha256", b"00", "column sha256 must hold text"),
        ("given_split", 7, "column given_split must hold text"),
        ("given_split", "validation", "given_split ['validation']"),
        ("width", "wide", "width or height is no number"),
        ("width", 4.5, "width or height is no number"),
        ("width", 0, "column width must hold pixels"),
        ("height", -4, "column height must hold pixels"),
    ],
)
def test_a_column_of_another_type_is_refused(column: str, value: Any, fault: str) -> None:
    rows = RowList("width", "height", "sequence", "sha256")
    rows.add("a.jpg", [0], 1, **{column: value})
    with pytest.raises(DataError) as caught:
        make_rows(rows, CLASSES, [])
    assert fault in str(caught.value)
    assert [problem.where for problem in caught.value.problems] == ["reader"]


def test_a_column_that_no_manifest_has_is_refused() -> None:
    with pytest.raises(ValueError, match="no such columns"):
        RowList("heigth")


@pytest.mark.parametrize("table", ["", "name\ncat\n"])
def test_classes_of_one_name_and_without_a_name_are_mistakes_of_the_annotations(tmp_path: Path, table: str) -> None:
    """A reader that takes its classes from a user's file wrote them, and the next stage refused its own input."""
    if table:
        (tmp_path / "classes.csv").write_text(table)
    _, problems = published_classes(DataFolder(tmp_path), ["cat", "dog", "", "cat", " "], Ingest())
    assert [problem.what for problem in problems] == [
        "class 'cat' appears twice",
        "a class without a name",
        "a class without a name",
    ]


def test_more_classes_than_a_label_has_numbers_for_are_refused(tmp_path: Path) -> None:
    """The 32,769th became class -32,768."""
    names = [f"tag {number:05}" for number in range(2**15)]
    classes, problems = published_classes(DataFolder(tmp_path), names[1:], Ingest())
    assert (len(classes), problems) == (2**15 - 1, [])
    with pytest.raises(DataError, match="32,768 classes, at most 32,767 are possible"):
        published_classes(DataFolder(tmp_path), names, Ingest())
