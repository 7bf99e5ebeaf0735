"""The labels.csv reader on good, hostile and broken tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from capnet.config import Ingest
from capnet.data.formats import Annotations
from capnet.data.formats.csv import read
from capnet.errors import DataError, Problem


def write(root: Path, labels: str | bytes, classes: str | None = None) -> Path:
    root.mkdir(exist_ok=True)
    (root / "labels.csv").write_bytes(labels if isinstance(labels, bytes) else labels.encode())
    if classes is not None:
        (root / "classes.csv").write_text(classes)
    return root


def problems_of(root: Path, settings: Ingest | None = None) -> list[Problem]:
    """What the reader says is wrong, whether it could go on or not."""
    try:
        return read(root, settings or Ingest()).problems
    except DataError as error:
        return error.problems


def accept(root: Path, settings: Ingest | None = None) -> Annotations:
    found = read(root, settings or Ingest())
    assert found.problems == []
    return found


def test_all_columns_are_read(tmp_path: Path) -> None:
    table = (
        "path,labels,unknown,image_id,split,group,slice,photographer\n"
        "images/a.jpg,dog|cat,bird,A,train,g1,day,me\n"
        './images//b.png,"cat | cat|",,,val,,,"x, y"\n'
        "images/c.jpg,,dog|bird,,,g1,night,\n"
    )
    found = accept(write(tmp_path, table))
    assert found.classes.names == ["bird", "cat", "dog"]
    rows = found.rows
    assert rows["path"].tolist() == ["images/a.jpg", "images/b.png", "images/c.jpg"]
    assert rows["image_id"].tolist() == ["A", "images/b", "images/c"]
    assert rows["labels"].tolist() == [[1, 2], [1], []]
    assert rows["unknown"].tolist() == [[0], [], [0, 2]]
    for name, values in (("given_split", ["train", "val", None]), ("group", ["g1", None, "g1"]), ("slice", ["day", None, "night"])):
        assert [None if value != value else value for value in rows[name]] == values
    assert [found.where(row) for row in range(3)] == ["labels.csv row 2", "labels.csv row 3", "labels.csv row 4"]


def test_classes_csv_gives_order_prompts_and_critical(tmp_path: Path) -> None:
    root = write(tmp_path, "path,labels\na.jpg,zebra\n", "name,prompt_name,critical\nzebra,,true\ntv,television set,no\n")
    classes = accept(root).classes
    assert classes.names == ["zebra", "tv"]
    assert classes.prompt_names == ["zebra", "television set"]
    assert [item.critical for item in classes.items] == [True, False]


def test_indices_need_classes_csv_and_names_that_are_no_numbers(tmp_path: Path) -> None:
    root = write(tmp_path / "indices", "path,labels,unknown\na.jpg,2 0,1\nb.jpg,,\n", "name\nx\ny\nz\n")
    found = accept(root, Ingest(separator=" "))
    assert found.rows["labels"].tolist() == [[0, 2], []]
    assert found.rows["unknown"].tolist() == [[1], []]
    digits = write(tmp_path / "digits", "path,labels\na.jpg,7\nb.jpg,3\n", "name\n7\n3\n")
    assert accept(digits).rows["labels"].tolist() == [[0], [1]]
    mixed = write(tmp_path / "mixed", "path,labels\na.jpg,0\nb.jpg,y\n", "name\nx\ny\n")
    assert [problem.what for problem in problems_of(mixed)] == ["label '0' is not in classes.csv"]
    bare = write(tmp_path / "bare", "path,labels\na.jpg,0\nb.jpg,1\n")
    assert "classes.csv" in problems_of(bare)[0].todo


def test_an_index_beyond_the_classes_is_a_problem_and_not_a_wrap_around(tmp_path: Path) -> None:
    root = write(tmp_path, "path,labels\na.jpg,0\nb.jpg,3\nc.jpg,-1\n", "name\nx\ny\nz\n")
    found = problems_of(root)
    assert {problem.what for problem in found} >= {"label '3' is not in classes.csv", "label '-1' is not in classes.csv"}


def test_every_mistake_is_reported_at_once_with_its_row(tmp_path: Path) -> None:
    table = (
        "path,labels,unknown,image_id,split\n"  # row 1
        "a.jpg,dgo,,,train\n"
        "../secret.jpg,dog,,,\n"
        "/etc/passwd,dog,,,\n"
        "C:\\x.jpg,dog,,,\n"
        "sub\\x.jpg,dog,,,\n"
        ",dog,,,\n"
        "a.jpg,dog,,,\n"
        "b.jpg,dog|cat,cat,,\n"
        "c.jpg,dog,,,validation\n"
        "d.jpg,dog,,e,\n"
        "e.png,dog,,,\n"
        "f.jpg,dog,,\n"
        "g.jpg,wolpertinger,dgo,,\n"
    )
    found = problems_of(write(tmp_path, table, "name\ndog\ncat\n"))
    text = {problem.what: f"{problem.where} {problem.todo}" for problem in found}
    expected = {
        "4 cells, the header has 5": "row 13",
        "label 'dgo' is not in classes.csv": "did you mean 'dog'",
        "label 'wolpertinger' is not in classes.csv": "row 14",
        "label 'cat' is both in labels and in unknown": "row 9",
        "path '../secret.jpg' leaves the data folder": "row 3",
        "path '/etc/passwd' is absolute": "row 4",
        "path 'C:\\\\x.jpg' is absolute": "row 5",
        "path 'sub\\\\x.jpg' has backslashes": "row 6",
        "the path is empty": "row 7",
        "path 'a.jpg' is there twice": "row 8, first in row 2",
        "split = 'validation'": "did you mean 'val'",
        "image id 'e' is there twice": "row 12, first in row 11",
    }
    assert set(text) == set(expected)
    for what, part in expected.items():
        assert part in text[what], what
    assert "labels.csv row 2, column labels" in {problem.where for problem in found}
    assert "labels.csv row 14, column unknown" in {problem.where for problem in found}


def test_paths_outside_the_data_folder_are_not_handed_on(tmp_path: Path) -> None:
    found = read(write(tmp_path, "path,labels\n../x.jpg,a\nimages/../../x.jpg,a\n/x.jpg,a\nok.jpg,a\n"), Ingest())
    assert len(found.problems) == 3
    assert found.rows["path"].tolist() == ["ok.jpg"]


@pytest.mark.parametrize(
    ("table", "what", "todo"),
    [
        (b"", "the file is empty", "path,labels"),
        (b"path,labels\n", "no rows", "one row a picture"),
        (b"path,labels\n\n , \n", "no rows", "one row a picture"),
        (b"path,lables\na.jpg,dog\n", "column 'labels' is missing", "rename column 'lables'"),
        (b"path;labels\na.jpg;dog\n", "not separated by commas", "comma"),
        (b"path,labels,unkown\na.jpg,dog,cat\n", "column 'unkown' would be ignored", "'unknown'"),
        (b"path,labels,labels\na.jpg,dog,cat\n", "column 'labels' is there twice", "remove one"),
        (b'path,labels\na.jpg,"dog\nb.jpg,cat\n', "not a CSV file", "quote"),
        (b"path,labels\na.jpg,k\xe4se\n", "byte 0xe4 in line 2", "UTF-8"),
        ("path,labels\na.jpg,dog\n".encode("utf-16"), "not UTF-8 text", "UTF-8"),
        (b"path,labels\na.jpg,\nb.jpg,\n", "no row has a label", "labels.csv"),
        (b"path,labels\na.jpg,dog\nb.jpg,Dog\n", "differ only in upper and lower case", "classes.csv"),
    ],
)
def test_broken_tables_are_one_clear_problem(tmp_path: Path, table: bytes, what: str, todo: str) -> None:
    (problem,) = problems_of(write(tmp_path, table))
    assert what in problem.what
    assert todo in problem.todo


@pytest.mark.parametrize(
    ("classes", "what"),
    [
        ("name\n", "no classes"),
        ("", "the file is empty"),
        ("label\ndog\n", "column 'name' is missing"),
        ("name\ndog\ndog\n", "class 'dog' is there twice"),
        ("name,critical\ndog,maybe\n", "critical = 'maybe'"),
        ("name\ndog\ncat|mouse\n", "contains the separator"),
        ("name,prompt_name\ndog,x\n,y\n", "a class without a name"),
    ],
)
def test_broken_class_lists_are_one_clear_problem(tmp_path: Path, classes: str, what: str) -> None:
    (problem,) = problems_of(write(tmp_path, "path,labels\na.jpg,dog\n", classes))
    assert what in problem.what


def test_the_wrong_separator_is_named(tmp_path: Path) -> None:
    (problem,) = problems_of(write(tmp_path, "path,labels\na.jpg,dog;cat\n", "name\ndog\ncat\n"))
    assert "ingest.separator to ';'" in problem.todo


def test_a_byte_order_mark_windows_lines_and_umlauts_are_read(tmp_path: Path) -> None:
    found = accept(write(tmp_path, "\ufeffpath,labels\r\nbilder/k\u00e4se.jpg,K\u00e4se\r\n".encode()))
    assert found.classes.names == ["K\u00e4se"]
    assert found.rows["image_id"].tolist() == ["bilder/k\u00e4se"]


def test_missing_folder_empty_folder_and_missing_table_differ(tmp_path: Path) -> None:
    assert "no data folder" in problems_of(tmp_path / "nowhere")[0].what
    (tmp_path / "empty").mkdir()
    (problem,) = problems_of(tmp_path / "empty")
    assert "is empty" in problem.what
    assert "capnet demo-data" in problem.todo
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "Labels.csv").write_text("path,labels\n")
    (problem,) = problems_of(tmp_path / "other")
    assert "rename Labels.csv" in problem.todo


def test_a_thousand_classes_and_many_rows(tmp_path: Path) -> None:
    names = [f"thing {n:04d}" for n in range(1000)]
    lines = [f"images/{n}.jpg,{names[n % 1000]}|{names[(7 * n) % 1000]}" for n in range(5000)]
    found = accept(write(tmp_path, "path,labels\n" + "\n".join(lines) + "\n"))
    assert found.classes.names == names
    assert all(row == sorted({n % 1000, (7 * n) % 1000}) for n, row in enumerate(found.rows["labels"]))
