"""The labels.csv reader on good, hostile and broken tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from capnet.config import Ingest
from capnet.data.annotations.paths import DataFolder
from capnet.data.annotations.readers import csv
from capnet.data.annotations.rows import Annotations
from capnet.errors import DataError, Problem


def read(root: Path, settings: Ingest) -> Annotations:
    return csv.read(DataFolder(root), settings)


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


@pytest.mark.parametrize("name", ["patient_id", "PatientID", "Subject", "Camera"])
def test_a_column_that_reads_like_a_group_is_named_where_there_is_none(tmp_path: Path, name: str) -> None:
    (warning,) = accept(write(tmp_path, f"path,labels,{name},photographer\na.jpg,dog,7,me\n")).warnings
    assert warning == (
        f"column {name!r} is not read. If images with the same value belong together, call it 'group': else they get"
        " into two splits, and the figures flatter"
    )
    assert not accept(write(tmp_path, f"path,labels,{name},group\na.jpg,dog,7,g\n")).warnings
    (tmp_path / "classes.csv").write_text(f"name\n{name}\n")
    assert not accept(write(tmp_path, f"path,{name}\na.jpg,1\n")).warnings, "a class"


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
    for name, values in (
        ("given_split", ["train", "val", None]),
        ("group", ["g1", None, "g1"]),
        ("slice", ["day", None, "night"]),
    ):
        assert [None if value != value else value for value in rows[name]] == values
    assert [found.where(row) for row in range(3)] == ["labels.csv row 2", "labels.csv row 3", "labels.csv row 4"]


def test_classes_csv_gives_order_prompts_and_critical(tmp_path: Path) -> None:
    root = write(
        tmp_path, "path,labels\na.jpg,zebra\n", "name,prompt_name,critical\nzebra,,true\ntv,television set,no\n"
    )
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
    assert {problem.what for problem in found} >= {
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
        "path 'a.jpg' appears twice": "row 8, first in labels.csv row 2",
        "split = 'validation'": "did you mean 'val'",
        "image id 'e' appears twice": "row 12, first in labels.csv row 11",
    }
    assert set(text) == set(expected)
    for what, part in expected.items():
        assert part in text[what], what
    assert "labels.csv row 2, column labels" in {problem.where for problem in found}
    assert "labels.csv row 14, column unknown" in {problem.where for problem in found}


@pytest.mark.parametrize(
    ("split", "meant"),
    [("validation", "val"), ("Training", "train"), ("TEST", "test"), ("extern", ""), ("x", "")],
)
def test_a_split_is_suggested_only_where_it_is_nearly_written(tmp_path: Path, split: str, meant: str) -> None:
    (problem,) = problems_of(write(tmp_path, f"path,labels,split\na.jpg,dog,{split}\n"))
    allowed = "allowed are train, val, test, or nothing"
    assert problem.todo == (f"did you mean {meant!r}? {allowed}" if meant else allowed)


def test_paths_outside_the_data_folder_are_not_handed_on(tmp_path: Path) -> None:
    found = read(write(tmp_path, "path,labels\n../x.jpg,a\nimages/../../x.jpg,a\n/x.jpg,a\nok.jpg,a\n"), Ingest())
    assert len(found.problems) == 3
    assert found.rows["path"].tolist() == ["ok.jpg"]


@pytest.mark.parametrize(
    ("table", "what", "todo"),
    [
        (b"", "the file is empty", "path,labels"),
        (b"path,labels\n", "no rows", "one row an image"),
        (b"path,labels\n\n , \n", "no rows", "one row an image"),
        (b"path,lables\na.jpg,dog\n", "column 'labels' is missing", "rename column 'lables'"),
        (b"path;labels\na.jpg;dog\n", "not separated by commas", "comma"),
        (b"path;group;grey, small;dog\na.jpg;1;1;0\n", "not separated by commas", "comma"),
        (b"group\tgrey, small\tpath\n1\t1\ta.jpg\n", "not separated by commas", "comma"),
        (b"path,labels,unkown\na.jpg,dog,cat\n", "column 'unkown' would be ignored", "'unknown'"),
        (b"path,labels,labels\na.jpg,dog,cat\n", "column 'labels' appears twice", "remove one"),
        (b'path,labels\na.jpg,"dog\nb.jpg,cat\n', "not a CSV file", "quote"),
        (b"path,labels\na.jpg,k\xe4se\n", "byte 0xe4 in line 2", "UTF-8"),
        ("path,labels\na.jpg,dog\n".encode("utf-16"), "not UTF-8 text", "UTF-8"),
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


def test_a_label_that_says_that_nothing_is_there_is_no_class_to_add(tmp_path: Path) -> None:
    (problem,) = problems_of(write(tmp_path, "path,labels\na.jpg,dog\nb.jpg,No Finding\n", "name\ndog\n"))
    assert problem.what == "label 'No Finding' is not in classes.csv"
    assert problem.todo == "leave the cell empty where no class is there, or add it to classes.csv if it is one"


@pytest.mark.parametrize("cell", ["['dog', 'cat']", "['dog']", "[]", '[""dog""]'])
@pytest.mark.parametrize("classes", [None, "name\ndog\ncat\n"])
def test_a_list_as_python_writes_it_is_no_label(tmp_path: Path, cell: str, classes: str | None) -> None:
    (problem,) = problems_of(write(tmp_path, f'path,labels\na.jpg,"{cell}"\nb.jpg,dog|cat\n', classes))
    assert "is a list as programs write it" in problem.what or "is not in classes.csv" in problem.what
    assert problem.todo == "write the names alone, with '|' between them"


def test_the_wrong_separator_is_named(tmp_path: Path) -> None:
    (problem,) = problems_of(write(tmp_path, "path,labels\na.jpg,dog;cat\n", "name\ndog\ncat\n"))
    assert "ingest.separator to ';'" in problem.todo


@pytest.mark.parametrize(
    ("cell", "mark"), [("dog;cat", ";"), ("dog; cat", ";"), ('"dog, cat"', ","), ("dog / cat", "/")]
)
def test_labels_that_another_separator_divides_into_labels_are_no_class_of_their_own(
    tmp_path: Path, cell: str, mark: str
) -> None:
    table = f"path,labels\na.jpg,{cell}\nb.jpg,dog\nc.jpg,cat\n"
    (problem,) = problems_of(write(tmp_path, table))
    assert f"set ingest.separator to {mark!r}" in problem.todo
    assert accept(write(tmp_path, table), Ingest(separator=mark)).classes.names == ["cat", "dog"]
    name = cell.strip('"')
    assert accept(write(tmp_path, table, f"name\ndog\ncat\n{cell}\n")).classes.names == ["dog", "cat", name], (
        "listed, so meant"
    )


def test_a_mark_in_a_name_alone_is_no_separator(tmp_path: Path) -> None:
    table = 'path,labels\na.jpg,"dog, small|cat"\nb.jpg,dog|cow/ox\n'
    found = accept(write(tmp_path, table))
    assert found.classes.names == ["cat", "cow/ox", "dog", "dog, small"]
    (warning,) = found.warnings
    assert warning.startswith(
        "2 of 4 classes look like several labels: 'dog, small', 'cow/ox'; ingest.separator is '|'"
    )
    assert accept(write(tmp_path, table, 'name\ncat\ncow/ox\ndog\n"dog, small"\n')).warnings == [], "listed, so meant"


@pytest.mark.parametrize(
    ("cells", "mark"),
    [
        (["fox;owl", "deer"], ""),
        (["fox;owl", "fox"], ";"),
        (["fox; owl", "fox; deer"], ";"),
        (["fox;", "fox"], ";"),
        (["fox;owl"], ";"),
        (["fox, owl"], ","),
        (["fox/owl"], ""),
        (["salt, pepper", "fox"], ""),
        (["fox, small", "fox"], ""),
        (["fox, small", "fox, large", "owl, small", "owl, large"], ""),
        (["deer, fox", "fox, owl", "deer, owl"], ","),
        (["deer/fox", "fox/owl", "deer/owl/x"], "/"),
    ],
)
def test_a_name_with_a_mark_is_refused_where_it_is_near_certain_and_else_a_warning(
    tmp_path: Path, cells: list[str], mark: str
) -> None:
    table = "path,labels\n" + "".join(f'{number}.jpg,"{cell}"\n' for number, cell in enumerate(cells))
    if mark:
        (problem,) = problems_of(write(tmp_path, table))
        assert f"with {mark!r} between them" in problem.what
        assert f"set ingest.separator to {mark!r}" in problem.todo
        assert accept(write(tmp_path, table), Ingest(separator=mark)).warnings == []
    else:
        (warning,) = accept(write(tmp_path, table)).warnings
        assert "several labels" in warning


def test_a_set_whose_names_have_no_mark_is_not_warned_of(tmp_path: Path) -> None:
    assert accept(write(tmp_path, "path,labels\na.jpg,fox|grey owl\n")).warnings == []


def test_a_spreadsheet_is_to_be_saved_and_not_renamed(tmp_path: Path) -> None:
    (tmp_path / "Labels.xlsx").write_bytes(b"PK")
    (problem,) = problems_of(tmp_path)
    assert "save Labels.xlsx as labels.csv in the spreadsheet program" in problem.todo


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


def wide(root: Path, table: str, classes: str = "name\nfox\ndeer\nbird\n") -> Path:
    return write(root, table, classes)


def test_one_column_a_class_with_unknowns(tmp_path: Path) -> None:
    table = "path,patient,fox,bird,deer,group\na.jpg,p1,1,0,-1,g\nb.jpg,p2,0.0,,1.0,g\nc.jpg,p3,-1.0,True,false,\n"
    root = wide(tmp_path, table)
    found = accept(root)
    assert found.classes.names == ["fox", "deer", "bird"]
    assert found.rows["labels"].tolist() == [[0], [1], [2]]
    assert found.rows["unknown"].tolist() == [[1], [2], [0]]
    negative = accept(root, Ingest(empty_cell="negative"))
    assert negative.rows["labels"].tolist() == found.rows["labels"].tolist()
    assert negative.rows["unknown"].tolist() == [[1], [], [0]]


def test_a_wide_table_reports_strange_cells_and_missing_columns(tmp_path: Path) -> None:
    found = problems_of(wide(tmp_path / "cells", "path,fox,deer,bird\na.jpg,2,0,0\nb.jpg,0,yes,1\n"))
    assert [(problem.what, problem.where) for problem in found] == [
        ("'2' in the column of a class", "labels.csv row 2, column fox"),
        ("'yes' in the column of a class", "labels.csv row 3, column deer"),
    ]
    (problem,) = problems_of(wide(tmp_path / "column", "path,fox,deer\na.jpg,1,0\n"))
    assert problem.what.startswith("class 'bird' has no column")
    (problem,) = problems_of(write(tmp_path / "bare", "path,fox,deer\na.jpg,1,0\n"))
    assert "one column a class" in problem.todo  # without classes.csv nobody knows which columns are classes
    (problem,) = problems_of(wide(tmp_path / "twice", "path,fox,deer,bird,fox\na.jpg,1,0,0,1\n"))
    assert problem.what == "column 'fox' appears twice"


def test_fifty_sites_seventy_percent_blanks_a_wide_table(tmp_path: Path) -> None:
    """The made set of camera traps as a table: blanks stay, unknowns stay unknown, no site is on two sides."""
    import numpy as np

    from capnet.config import Params
    from capnet.contracts import read_classes, read_split
    from capnet.stages import run

    rng = np.random.default_rng(1)
    names = ["fox", "deer", "bird"]
    states = np.where(rng.random((1500, 3)) < 0.4, 1, 0)
    states[rng.random(1500) < 0.7] = 0
    states[rng.random((1500, 3)) < 0.05] = -1
    cells = {1: ["1", "1.0"], 0: ["0"], -1: ["-1", ""]}
    lines = [
        f"{number}.jpg,site {rng.integers(50)},b{number // 4},"
        + ",".join(str(rng.choice(cells[state])) for state in row)
        for number, row in enumerate(states.tolist())
    ]
    root = wide(tmp_path / "data", "path,group,sequence," + ",".join(names) + "\n" + "\n".join(lines) + "\n")
    params = Params(ingest=Ingest(images="listed"))
    run("ingest", params, {"data": root}, {"manifest": tmp_path / "manifest"})
    run("split", params, {"manifest": tmp_path / "manifest"}, {"split": tmp_path / "split"})
    frame = read_split(tmp_path / "split/split.parquet").set_index("path")
    assert len(frame) == 1500
    assert frame.groupby("group")["split"].nunique().max() == 1
    for number, row in enumerate(states.tolist()):
        assert frame.at[f"{number}.jpg", "labels"].tolist() == [c for c in range(3) if row[c] == 1]
        assert frame.at[f"{number}.jpg", "unknown"].tolist() == [c for c in range(3) if row[c] == -1]
    assert frame["sequence"].nunique() == 375
    train = [int(path.removesuffix(".jpg")) for path in frame.index[frame["split"] == "train"]]
    assert (
        read_classes(tmp_path / "split/classes.json").train_counts.tolist() == (states[train] == 1).sum(axis=0).tolist()
    )


def test_parquet_with_lists_names_and_numbers(tmp_path: Path) -> None:
    import pandas as pd

    tmp_path.joinpath("classes.csv").write_text("name\nfox\ndeer\n")
    frame = pd.DataFrame(
        {
            "path": ["a b/ä.jpg", "b.jpg", "c.jpg"],
            "labels": [["deer", "fox"], [], None],
            "group": [7, 7, 8],
            "split": ["train", None, "test"],
        }
    )
    frame.to_parquet(tmp_path / "labels.parquet")
    settings = Ingest(labels="labels.parquet")
    found = accept(tmp_path, settings)
    assert found.rows["labels"].tolist() == [[0, 1], [], []]
    assert found.rows["group"].tolist() == ["7", "7", "8"]
    assert found.where(2) == "labels.parquet row 3"
    frame.assign(labels=[[1, 0], [0], []]).to_parquet(tmp_path / "labels.parquet")
    assert accept(tmp_path, settings).rows["labels"].tolist() == [[0, 1], [0], []]
    frame.assign(labels=["deer|fox", "", None]).to_parquet(tmp_path / "labels.parquet")
    assert accept(tmp_path, settings).rows["labels"].tolist() == [[0, 1], [], []]
    frame.assign(labels=[1, 0, 1]).to_parquet(tmp_path / "labels.parquet")
    assert accept(tmp_path, settings).rows["labels"].tolist() == [[1], [0], [1]]
    # one empty cell, and pandas makes floats of all
    frame.assign(labels=[0.0, 1.0, None]).to_parquet(tmp_path / "labels.parquet")
    assert accept(tmp_path, settings).rows["labels"].tolist() == [[0], [1], []]
    for strange in ([b"fox", b"", b""], [{"fox": 1}] * 3, [[["fox"]], [], []]):
        frame.assign(labels=strange).to_parquet(tmp_path / "labels.parquet")
        assert problems_of(tmp_path, settings)[0].what.startswith("column 'labels' holds ")
    wide_frame = frame.drop(columns="labels").assign(fox=[1, 0, None], deer=[-1.0, 1.0, 0.0])
    wide_frame.to_parquet(tmp_path / "labels.parquet")
    assert accept(tmp_path, settings).rows["labels"].tolist() == [[0], [1], []]
    assert accept(tmp_path, settings).rows["unknown"].tolist() == [[1], [], [0]]
    (tmp_path / "labels.parquet").write_bytes(b"PAR1 but not really")
    (problem,) = problems_of(tmp_path, settings)
    assert "not a Parquet file" in problem.what


def test_what_programs_write_for_an_empty_cell_is_no_class_and_no_group(tmp_path: Path) -> None:
    table = "path,labels,group\na.jpg,nan,site 1\nb.jpg,fox,NaN\nc.jpg,fox|None,<NA>\nd.jpg,NA,\n"
    assert [problem.what for problem in problems_of(write(tmp_path, table))] == [
        "group = 'NaN' is how programs write an empty cell",
        "group = '<NA>' is how programs write an empty cell",
        "label 'NA' is how programs write an empty cell",
        "label 'None' is how programs write an empty cell",
        "label 'nan' is how programs write an empty cell",
    ]
    accept(write(tmp_path, "path,labels\na.jpg,none\n", "name\nnone\n"))
    assert "has a control character" in problems_of(write(tmp_path / "b", 'path,labels\na.jpg,"fox\ndeer"\n'))[0].what


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (["fo\u200bx", "fox"], "labels 'fox' and 'fo\\u200bx' look alike"),
        (["red\u00a0fox", "red fox"], "labels 'red fox' and 'red\\xa0fox' look alike"),
        (["Cafe\u0301", "Caf\u00e9"], "labels 'Cafe\\u0301' and 'Caf\\xe9' look alike"),
        (["fox\u202egpj"], "label 'fox\\u202egpj' has a control character"),
    ],
)
def test_names_that_a_person_cannot_tell_apart_are_named(tmp_path: Path, names: list[str], what: str) -> None:
    rows = "".join(f"{n}.jpg,{name}\n" for n, name in enumerate(names))
    (problem,) = problems_of(write(tmp_path, "path,labels\n" + rows))
    assert problem.what.startswith(what)


def test_numbers_and_names_are_not_mixed(tmp_path: Path) -> None:
    (problem,) = problems_of(write(tmp_path, "path,labels\na.jpg,0\nb.jpg,deer\n", "name\nfox\ndeer\n"))
    assert problem.what == "label '0' is not in classes.csv"
    assert "such as 'deer': write names, or indices" in problem.todo


def test_gzipped_tables_and_damaged_ones(tmp_path: Path) -> None:
    import gzip

    data = gzip.compress(b"path,labels\n" + b"".join(b"%d.jpg,fox\n" % number for number in range(5000)))
    (tmp_path / "labels.csv.gz").write_bytes(data)
    settings = Ingest(labels="labels.csv.gz")
    assert len(accept(tmp_path, settings).rows) == 5000
    (tmp_path / "labels.csv.gz").write_bytes(data[: len(data) // 2])
    assert "cannot be read" in problems_of(tmp_path, settings)[0].what


def test_sizes_and_hashes_of_the_table(tmp_path: Path) -> None:
    found = read(
        write(tmp_path, "path,labels,width,height,sha256\na.jpg,x,640,480,ab\nb.jpg,x,,,\nc.jpg,x,-1,9.5,\n"), Ingest()
    )
    assert [problem.what for problem in found.problems] == ["width = '-1'", "height = '9.5'"]
    assert found.rows["width"].isna().tolist() == [False, True, True]
    assert found.rows["sha256"].iloc[0] == "ab"


@pytest.mark.parametrize(
    "written",
    [
        "a.jpg",
        "a/b.jpg",
        "./a.jpg",
        "a//b.jpg",
        "a.b.jpg",
        ".hidden",
        "a",
        "a.",
        "a/.b.jpg",
        "ä ö.jpg",
        "a/b.tar/c.jpg",
        "a b/c d.JPEG",
        "...jpg",
        "a/./b",
        "-x.jpg",
    ],
)
def test_paths_are_normalised_as_pathlib_does(written: str) -> None:
    from pathlib import PurePosixPath

    from capnet.data.annotations.paths import normal_path, without_suffix
    from capnet.section import path_fault

    assert path_fault(written) == ""
    assert normal_path(written) == str(PurePosixPath(written))
    assert without_suffix(normal_path(written)) == str(PurePosixPath(written).with_suffix(""))


@pytest.mark.parametrize(
    "written",
    [
        "",
        ".",
        "/",
        "..",
        "a/../b.jpg",
        "../a.jpg",
        "/etc/passwd",
        "C:/x.jpg",
        "c:\\x.jpg",
        "a\\b.jpg",
        "s3://b/x.jpg",
        "a\0.jpg",
    ],
)
def test_paths_that_are_refused(written: str) -> None:
    from capnet.section import path_fault

    assert path_fault(written)


def test_a_class_with_the_name_of_another_column_is_refused(tmp_path: Path) -> None:
    for name in ("group", "sequence", "sha256", "unknown"):
        root = wide(tmp_path, f"path,fox,{name}\na.jpg,1,0\n", f"name\nfox\n{name}\n")
        (problem,) = problems_of(root)
        assert f"class '{name}' has the name of a column" in problem.what
