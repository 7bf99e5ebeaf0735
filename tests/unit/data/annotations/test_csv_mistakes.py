"""The labels.csv reader on broken tables: every mistake with its row and what to do."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest
from unit.data.annotations.csv_tables import problems_of, read, write

from capnet.config import Ingest
from capnet.errors import DataError


def test_an_index_beyond_the_classes_is_a_problem_and_not_a_wrap_around(tmp_path: Path) -> None:
    root = write(tmp_path, "path,labels\na.jpg,0\nb.jpg,3\nc.jpg,-1\n", "name\nx\ny\nz\n")
    problems = problems_of(root)
    assert {problem.what for problem in problems} >= {
        "label '3' is not in classes.csv",
        "label '-1' is not in classes.csv",
    }


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
    problems = problems_of(write(tmp_path, table, "name\ndog\ncat\n"))
    text = {problem.what: f"{problem.where} {problem.todo}" for problem in problems}
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
        "path 'a.jpg' appears twice": "row 8, first in labels.csv row 2",
        "split = 'validation'": "did you mean 'val'",
        "image id 'e' appears twice": "row 12, first in labels.csv row 11",
    }
    assert set(text) == set(expected)
    for what, part in expected.items():
        assert part in text[what], what
    assert "labels.csv row 2, column labels" in {problem.where for problem in problems}
    assert "labels.csv row 14, column unknown" in {problem.where for problem in problems}


@pytest.mark.parametrize(
    ("split", "meant"),
    [("validation", "val"), ("Training", "train"), ("TEST", "test"), ("extern", ""), ("x", "")],
)
def test_a_split_is_suggested_only_where_it_is_nearly_written(tmp_path: Path, split: str, meant: str) -> None:
    (problem,) = problems_of(write(tmp_path, f"path,labels,split\na.jpg,dog,{split}\n"))
    allowed = "allowed are train, val, test, or nothing"
    assert problem.todo == (f"did you mean {meant!r}? {allowed}" if meant else allowed)


def test_paths_outside_the_data_folder_are_not_handed_on(tmp_path: Path) -> None:
    result = read(write(tmp_path, "path,labels\n../x.jpg,a\nimages/../../x.jpg,a\n/x.jpg,a\nok.jpg,a\n"), Ingest())
    assert len(result.problems) == 3
    assert result.rows["path"].tolist() == ["ok.jpg"]


@pytest.mark.parametrize(
    ("table", "what", "todo"),
    [
        (b"", "the file is empty", "path,labels"),
        (b"path,labels\n", "no rows", "one row an image"),
        (b"path,labels\n\n , \n", "no rows", "one row an image"),
        (b"path,lables\na.jpg,dog\n", "column 'labels' is missing", "rename column 'lables'"),
        (b"path;labels\na.jpg;dog\n", "not separated by commas", "comma"),
        (b'"path";"labels"\r\n"a.jpg";"dog"\r\n', "not separated by commas", "comma"),
        (b'\xef\xbb\xbf"path"\t"labels"\n"a.jpg"\t"grey, small"\n', "not separated by commas", "comma"),
        (b"path,tags\na.jpg,dog\n", "column 'labels' is missing", "rename column 'tags' to 'labels'"),
        (b"path;group;grey, small;dog\na.jpg;1;1;0\n", "not separated by commas", "comma"),
        (b"group\tgrey, small\tpath\n1\t1\ta.jpg\n", "not separated by commas", "comma"),
        (b"path,labels,unkown\na.jpg,dog,cat\n", "column 'unkown' would be ignored", "'unknown'"),
        (b"path,labels,labels\na.jpg,dog,cat\n", "column 'labels' appears twice", "remove one"),
        (b'path,labels\na.jpg,"dog\nb.jpg,cat\n', "not a CSV file", "quote"),
        (b"path,labels\na.jpg,k\xe4se\n", "byte 0xe4 in line 2", "UTF-8"),
        ("path,labels\na.jpg,dog\n".encode("utf-16"), "not UTF-8 text: UTF-16", "UTF-8"),
        ("path,labels\na.jpg,dog\n".encode("utf-16-le"), "not UTF-8 text: zero bytes, as UTF-16 has them", "UTF-8"),
        ("path,labels\r\na.jpg,dog\r\n".encode("utf-16-le"), "not UTF-8 text: zero bytes", "UTF-8"),
        ("path,labels\r\na.jpg,dog\r\n".encode("utf-16-be"), "not UTF-8 text: zero bytes", "UTF-8"),
        ("path,labels\na.jpg,dog\n".encode("utf-32-le"), "not UTF-8 text: zero bytes", "UTF-8"),
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
        ("n\0a\0m\0e\0\n\0d\0o\0g\0\n\0", "not UTF-8 text"),
        ("", "the file is empty"),
        ("label\ndog\n", "column 'name' is missing"),
        ("name\ndog\ndog\n", "class 'dog' appears twice"),
        ("name,critical\ndog,maybe\n", "critical = 'maybe'"),
        ("name\ndog\ncat|mouse\n", "contains the separator"),
        ("name,prompt_name\ndog,x\n,y\n", "a class without a name"),
    ],
)
def test_broken_class_lists_are_one_clear_problem(tmp_path: Path, classes: str, what: str) -> None:
    (problem,) = problems_of(write(tmp_path, "path,labels\na.jpg,dog\n", classes))
    assert what in problem.what


def test_a_spreadsheet_is_to_be_saved_and_not_renamed(tmp_path: Path) -> None:
    (tmp_path / "Labels.xlsx").write_bytes(b"PK")
    (problem,) = problems_of(tmp_path)
    assert "save Labels.xlsx as labels.csv in the spreadsheet program" in problem.todo


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
    (tmp_path / "other" / "Labels.csv").rename(tmp_path / "other" / "labels.parquet")
    (tmp_path / "other" / "classes.csv").write_text("name\ncat\n")
    (problem,) = problems_of(tmp_path / "other")
    assert problem.todo.startswith("set ingest.labels: labels.parquet, or write labels.csv")


def test_numbers_and_names_are_not_mixed(tmp_path: Path) -> None:
    (problem,) = problems_of(write(tmp_path, "path,labels\na.jpg,0\nb.jpg,deer\n", "name\nfox\ndeer\n"))
    assert problem.what == "label '0' is not in classes.csv"
    assert "such as 'deer': write names, or indices" in problem.todo


def test_all_columns_that_are_missing_are_named_at_once_by_what_other_programs_call_them(tmp_path: Path) -> None:
    path, labels = problems_of(write(tmp_path, "File,class\na.jpg,dog\n"))
    assert "rename column 'File' to 'path'" in path.todo
    assert "rename column 'class' to 'labels'" in labels.todo


@pytest.mark.parametrize("mark", [";", "\t"])
def test_the_command_in_the_message_writes_a_table_with_commas(tmp_path: Path, mark: str) -> None:
    rows = [["path", "labels"], ["a.jpg", "cat, small"], ["NA.jpg", ""], ["007.jpg", "NA"]]
    table = "\n".join(mark.join(row) for row in rows) + "\n"
    (problem,) = problems_of(write(tmp_path, table))
    command = problem.todo.partition("`")[2].rstrip("`")
    subprocess.run(command.replace("python", sys.executable, 1), shell=True, check=True)
    with (tmp_path / "labels.csv").open(newline="") as file:
        assert list(csv.reader(file)) == rows


def test_two_files_of_one_name_need_a_column_image_id(tmp_path: Path) -> None:
    (problem,) = problems_of(write(tmp_path, "path,labels\nimages/pair.jpg,a\nimages/pair.png,a\n"))
    assert "'images/pair' appears twice" in problem.what
    assert "in a column image_id" in problem.todo


def test_a_path_that_only_a_shell_understands_is_named() -> None:
    with pytest.raises(DataError, match="write the whole path"):
        read(Path("~/photos"), Ingest())


def test_a_header_that_is_repeated_is_no_image_and_no_class(tmp_path: Path) -> None:
    (problem,) = problems_of(write(tmp_path, "path,labels\na.jpg,fox\npath, labels\nb.jpg,fox\n"))
    assert (problem.what, problem.where) == ("the row is the header once more", "labels.csv row 3")


@pytest.mark.parametrize("name", ["labels.json", "metadata.jsonl", "annotations.xml"])
def test_a_file_of_another_format_is_not_read_as_a_table(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text('[{"path": "a.jpg", "labels": ["fox"]}]')
    (problem,) = problems_of(tmp_path, Ingest(labels=name))
    assert "is no CSV or Parquet file" in problem.what
    assert "docs/data-formats.md, Exports of other tools" in problem.todo
    (problem,) = problems_of(tmp_path)
    assert "docs/data-formats.md, Exports of other tools" in problem.todo


def test_what_a_spreadsheet_puts_above_the_header_is_named(tmp_path: Path) -> None:
    for mark in ";,":
        (problem,) = problems_of(write(tmp_path, f"sep={mark}\npath{mark}labels\na.jpg{mark}fox\n"))
        assert problem.what.startswith("line 1 is no header")


def test_semicolons_in_a_file_that_is_no_utf8_are_not_sent_to_a_command_that_cannot_read_it(tmp_path: Path) -> None:
    (problem,) = problems_of(write(tmp_path, "path;labels\na.jpg;Dachs\nb.jpg;Bär\n".encode("cp1252")))
    assert problem.what == "not UTF-8 text: byte 0xe4 in line 3"
    assert "comma separated" in problem.todo


@pytest.mark.parametrize(
    ("classes", "labels", "refused"),
    [
        ("id,name\n2,fox\n0,deer\n1,owl\n", "0|1", True),  # sorted by name
        ("id,name\n1,fox\n2,deer\n3,owl\n", "1", True),
        ("ClassId,name\n1,fox\n2,deer\n3,owl\n", "1", True),
        ("name,Class ID\nfox,1\ndeer,2\nowl,3\n", "1", True),
        ("cls_id,name\n0,fox\n1,deer\n2,owl\n", "1", False),
        ("name,class_id\nfox,3\ndeer,7\nowl,9\n", "0", True),
        ("id,name\n0,fox\n1,deer\n2,owl\n", "0|1", False),
        ("id,name\n2,fox\n0,deer\n1,owl\n", "fox|deer", False),
        ("name,images\nfox,120\ndeer,30\nowl,7\n", "0|1", False),
        ("name,id\nfox,n01\ndeer,n02\nowl,n03\n", "0|1", False),
    ],
)
def test_numbers_are_refused_where_the_classes_have_others(
    tmp_path: Path, classes: str, labels: str, refused: bool
) -> None:
    problems = problems_of(write(tmp_path, f"path,labels\na.jpg,{labels}\n", classes))
    assert [problem.what[:19] for problem in problems] == ["labels are numbers,"] * refused


@pytest.mark.parametrize("value", ["d41d8cd98f00b204e9800998ecf8427e", "e3b0c44298fc1c14", "g" * 64, "a" * 65])
def test_what_is_no_sha256_is_refused_where_it_is_written(tmp_path: Path, value: str) -> None:
    """An md5 was taken, and training then called the file another one than ingest saw."""
    table = write(tmp_path, f"path,labels,sha256\na.jpg,x,{value}\nb.jpg,x,{'0' * 64}\nc.jpg,x,\n")
    problems = problems_of(table, Ingest(images="listed"))
    assert [(problem.what, problem.where) for problem in problems] == [(f"sha256 = {value!r}", "labels.csv row 2")]
    assert "64 hexadecimal digits" in problems[0].todo


def test_rows_of_several_people_about_one_image_are_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("path,labels\na.jpg,fox\na.jpg,\nb.jpg,owl\n")
    (problem,) = problems_of(tmp_path)
    assert problem.todo == "keep one row an image, with all its labels; what several people disagree about is unknown"
