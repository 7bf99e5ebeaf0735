"""What people said about single labels, laid over annotations; every mistake in the table is named."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from capnet.config import Ingest
from capnet.data.annotations.class_list import published_classes
from capnet.data.annotations.corrections import apply_corrections, other_names, read_corrections
from capnet.data.annotations.paths import DataFolder
from capnet.data.annotations.readers import csv as reader
from capnet.data.annotations.rows import Annotations
from capnet.errors import DataError

TABLE = "path,labels,unknown\na.jpg,fox|owl,deer\nb/c.jpg,,\nd.jpg,owl,\n"


@pytest.fixture
def annotations(tmp_path: Path) -> Annotations:
    (tmp_path / "labels.csv").write_text(TABLE)
    result = reader.read(DataFolder(tmp_path), Ingest())
    assert result.classes.names == ["deer", "fox", "owl"]
    return result


def corrected(annotations: Annotations, folder: Path, text: str) -> tuple[int, list[str]]:
    (folder / "corrections.csv").write_text(text)
    changed, problems = apply_corrections(annotations, folder / "corrections.csv")
    return changed, [str(problem) for problem in problems]


def test_yes_no_and_unknown_are_laid_over_what_was_given(annotations: Annotations, tmp_path: Path) -> None:
    text = (
        "path,class,label,given,probability,split\n"
        "a.jpg,fox,no,yes,0.001,train\n"
        "a.jpg,deer,yes,,,\n"
        "./b//c.jpg,owl,Yes,no,0.99,train\n"
        "d.jpg,fox,,no,0.9,train\n"
        "d.jpg,owl,unknown,yes,0.1,train\n"
        "a.jpg,owl,yes,yes,0.9,train\n"
    )
    assert corrected(annotations, tmp_path, text) == (4, []), (
        "an open row says nothing, one that agrees changes nothing"
    )
    assert annotations.rows["labels"].tolist() == [[0, 2], [2], []]
    assert annotations.rows["unknown"].tolist() == [[], [], [2]]


def test_no_table_changes_nothing(annotations: Annotations, tmp_path: Path) -> None:
    assert apply_corrections(annotations, tmp_path / "corrections.csv") == (0, [])
    assert annotations.rows["labels"].tolist() == [[1, 2], [], [2]]


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ("a.jpg,fox,maybe", "label 'maybe'"),
        ("z.jpg,fox,yes", "image 'z.jpg' is not in the annotations"),
        ("a.jpg,cat,yes", "class 'cat' is not in the annotations"),
        ("d.jpg,fox,yes\nd.jpg,fox,no", "'fox' of 'd.jpg' is no here and yes in corrections.csv row 2"),
    ],
)
def test_mistakes_are_named_with_their_row(annotations: Annotations, tmp_path: Path, row: str, what: str) -> None:
    _, (problem,) = corrected(annotations, tmp_path, f"path,class,label\n{row}\n")
    assert what in problem
    assert "corrections.csv row " in problem


def test_an_image_without_annotation_is_to_be_labelled_in_the_annotations(
    annotations: Annotations, tmp_path: Path
) -> None:
    (tmp_path / "corrections.csv").write_text("path,class,label\nz.jpg,fox,yes\na.jpg,cat,yes\n")
    image, name = apply_corrections(annotations, tmp_path / "corrections.csv")[1]
    assert image.todo.endswith("(an image without any annotation: capnet label)")
    new = "(a new class is listed in the annotations first: for a table of your own in classes.csv)"
    assert name.todo == f"correct the name, or remove the row {new}"


def test_a_path_in_another_unicode_form_is_named_so(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("path,labels\nB\u00e4r.jpg,fox\n")
    annotations = reader.read(DataFolder(tmp_path), Ingest())
    _, (problem,) = corrected(annotations, tmp_path, "path,class,label\nBa\u0308r.jpg,fox,no\n")
    assert "write its accents in the Unicode form of the annotations" in problem


def test_a_class_in_another_unicode_form_is_named_so(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("path,labels\na.jpg,B\u00e4r\n")
    annotations = reader.read(DataFolder(tmp_path), Ingest())
    _, (problem,) = corrected(annotations, tmp_path, "path,class,label\na.jpg,Ba\u0308r,no\n")
    assert "write its accents in the Unicode form of the annotations: copy the name from there" in problem


def test_a_link_that_leads_nowhere_is_no_missing_table(annotations: Annotations, tmp_path: Path) -> None:
    """As those that DVC makes into a cache that was emptied."""
    (tmp_path / "corrections.csv").symlink_to("nowhere")
    _, (problem,) = apply_corrections(annotations, tmp_path / "corrections.csv")
    assert "cannot be read: [Errno 2] No such file or directory" in str(problem)
    (tmp_path / "classes.csv").symlink_to("nowhere")
    with pytest.raises(DataError, match=r"cannot be read: .*\n.*classes\.csv"):
        reader.read(DataFolder(tmp_path), Ingest())
    with pytest.raises(DataError, match=r"cannot be read: .*\n.*classes\.csv"):
        published_classes(DataFolder(tmp_path), ["deer"], Ingest())


def test_a_second_download_under_another_name_is_not_passed_over_in_silence() -> None:
    names = ["Corrections.csv", "classes.csv", "corrections (1).csv", "corrections.csv", "images", "labels.csv"]
    assert other_names(names, "corrections.csv") == ["Corrections.csv", "corrections (1).csv"]
    assert other_names(names, "") == [], "no folder of added images"


@pytest.mark.parametrize("text", ["", "path,labels\na.jpg,fox\n", "path,class,label\na.jpg,fox\n", "\xff\x00"])
def test_another_table_is_refused(annotations: Annotations, tmp_path: Path, text: str) -> None:
    (tmp_path / "corrections.csv").write_bytes(text.encode("latin-1"))
    assert read_corrections(tmp_path / "corrections.csv")[2]
    assert apply_corrections(annotations, tmp_path / "corrections.csv")[1]
    assert annotations.rows["labels"].tolist() == [[1, 2], [], [2]]


def test_many_corrections_of_one_image_take_time_in_proportion(tmp_path: Path) -> None:
    names = [f"class {n}" for n in range(20_000)]
    (tmp_path / "classes.csv").write_text("\n".join(["name", *names]))
    (tmp_path / "labels.csv").write_text("path,labels\na.jpg,\n")
    annotations = reader.read(DataFolder(tmp_path), Ingest())
    begin = time.process_time()
    text = "path,class,label\n" + "".join(f"a.jpg,{name},yes\n" for name in names)
    assert corrected(annotations, tmp_path, text) == (20_000, [])
    assert time.process_time() - begin < 3, "20,000 labels, each sorted among all, took 30 seconds"
    assert list(annotations.rows["labels"][0]) == list(range(20_000))
