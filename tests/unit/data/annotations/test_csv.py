"""The labels.csv reader on good tables: columns, names and indices, paths, other kinds of files."""

from __future__ import annotations

from pathlib import Path

import pytest
from unit.data.annotations.csv_tables import accept, problems_of, read, write

from capnet.config import Ingest


@pytest.mark.parametrize("name", ["patient_id", "PatientID", "Subject", "Camera", "lesion_id", "site", "SiteName"])
def test_a_column_that_reads_like_a_group_is_named_where_there_is_none(tmp_path: Path, name: str) -> None:
    (warning,) = accept(write(tmp_path, f"path,labels,{name},photographer\na.jpg,dog,7,me\n")).warnings
    assert warning == (
        f"column {name!r} is not read. If images with the same value belong together, call it 'group': else they get"
        " into two splits, and the figures flatter"
    )
    assert not accept(write(tmp_path, f"path,labels,{name},group\na.jpg,dog,7,g\n")).warnings
    (tmp_path / "classes.csv").write_text(f"name\n{name}\n")
    assert not accept(write(tmp_path, f"path,{name}\na.jpg,1\n")).warnings, "a class"


@pytest.mark.parametrize("name", ["Patient Age", "Patient Gender", "PatientSex", "patient_age", "anatom_site"])
def test_an_attribute_of_patients_is_no_group(tmp_path: Path, name: str) -> None:
    assert not accept(write(tmp_path, f"path,labels,{name}\na.jpg,dog,F\n")).warnings


def test_a_column_that_reads_like_unknown_labels_is_named_where_there_is_none(tmp_path: Path) -> None:
    (warning,) = accept(write(tmp_path, "path,labels,Unsure\na.jpg,dog,cat\n")).warnings
    assert warning == (
        "column 'Unsure' is not read. If it holds labels that are uncertain, call it 'unknown': else they count as"
        " absent"
    )
    assert not accept(write(tmp_path, "path,labels,Unsure,unknown\na.jpg,dog,cat,cat\n")).warnings


def test_columns_without_a_name_at_the_end_as_spreadsheets_write_them(tmp_path: Path) -> None:
    rows = accept(write(tmp_path, "path,labels,group,,\na.jpg,dog,7,,\nb.jpg,,8,,\n")).rows
    assert (rows["path"].tolist(), rows["group"].tolist()) == (["a.jpg", "b.jpg"], ["7", "8"])


def test_a_column_of_states_that_no_class_has_the_name_of_is_named(tmp_path: Path) -> None:
    table = "path,cat,oedema,mass,age,note,empty\na.jpg,1,1,,0,,\nb.jpg,0,-1,0.0,71,,\nc.jpg,,,1,1,x,\n"
    (warning,) = accept(write(tmp_path, table, "name\ncat\n")).warnings
    assert warning == "2 columns of 1, 0 and -1 are not read: oedema, mass. List those that are classes in classes.csv"
    assert not accept(write(tmp_path, table, "name\ncat\noedema\nmass\n")).warnings
    assert not accept(write(tmp_path, "path,labels,old\na.jpg,cat,1\n", "name\ncat\n")).warnings, "no wide table"


def test_all_columns_are_read(tmp_path: Path) -> None:
    table = (
        "path,labels,unknown,image_id,split,group,slice,photographer\n"
        "images/a.jpg,dog|cat,bird,A,train,g1,day,me\n"
        './images//b.png,"cat | cat|",,,val,,,"x, y"\n'
        "images/c.jpg,,dog|bird,,,g1,night,\n"
    )
    result = accept(write(tmp_path, table))
    assert result.classes.names == ["bird", "cat", "dog"]
    rows = result.rows
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
    assert [result.where(row) for row in range(3)] == ["labels.csv row 2", "labels.csv row 3", "labels.csv row 4"]


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
    result = accept(root, Ingest(separator=" "))
    assert result.rows["labels"].tolist() == [[0, 2], []]
    assert result.rows["unknown"].tolist() == [[1], []]
    digits = write(tmp_path / "digits", "path,labels\na.jpg,7\nb.jpg,3\n", "name\n7\n3\n")
    assert accept(digits).rows["labels"].tolist() == [[0], [1]]
    mixed = write(tmp_path / "mixed", "path,labels\na.jpg,0\nb.jpg,y\n", "name\nx\ny\n")
    assert [problem.what for problem in problems_of(mixed)] == ["label '0' is not in classes.csv"]
    bare = write(tmp_path / "bare", "path,labels\na.jpg,0\nb.jpg,1\n")
    assert "classes.csv" in problems_of(bare)[0].todo


def test_a_byte_order_mark_windows_lines_and_umlauts_are_read(tmp_path: Path) -> None:
    result = accept(write(tmp_path, "\ufeffpath,labels\r\nbilder/k\u00e4se.jpg,K\u00e4se\r\n".encode()))
    assert result.classes.names == ["K\u00e4se"]
    assert result.rows["image_id"].tolist() == ["bilder/k\u00e4se"]


def test_a_thousand_classes_and_many_rows(tmp_path: Path) -> None:
    names = [f"thing {n:04d}" for n in range(1000)]
    lines = [f"images/{n}.jpg,{names[n % 1000]}|{names[(7 * n) % 1000]}" for n in range(5000)]
    result = accept(write(tmp_path, "path,labels\n" + "\n".join(lines) + "\n"))
    assert result.classes.names == names
    assert all(row == sorted({n % 1000, (7 * n) % 1000}) for n, row in enumerate(result.rows["labels"]))


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
    result = accept(tmp_path, settings)
    assert result.rows["labels"].tolist() == [[0, 1], [], []]
    assert result.rows["group"].tolist() == ["7", "7", "8"]
    assert result.where(2) == "labels.parquet row 3"
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
    frame[[]].to_parquet(tmp_path / "labels.parquet", index=False)
    assert [problem.what for problem in problems_of(tmp_path, settings)] == [
        "column 'path' is missing: found no column"
    ]


def test_gzipped_tables_and_damaged_ones(tmp_path: Path) -> None:
    import gzip

    data = gzip.compress(b"path,labels\n" + b"".join(b"%d.jpg,fox\n" % number for number in range(5000)))
    (tmp_path / "labels.csv.gz").write_bytes(data)
    settings = Ingest(labels="labels.csv.gz")
    assert len(accept(tmp_path, settings).rows) == 5000
    (tmp_path / "labels.csv.gz").write_bytes(data[: len(data) // 2])
    assert "cannot be read" in problems_of(tmp_path, settings)[0].what


def test_sizes_and_hashes_of_the_table(tmp_path: Path) -> None:
    result = read(
        write(tmp_path, "path,labels,width,height,sha256\na.jpg,x,640,480,ab\nb.jpg,x,,,\nc.jpg,x,-1,9.5,\n"), Ingest()
    )
    assert [problem.what for problem in result.problems] == ["width = '-1'", "height = '9.5'"]
    assert result.rows["width"].isna().tolist() == [False, True, True]
    assert result.rows["sha256"].iloc[0] == "ab"


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


def test_a_burst_is_the_group_of_rows_without_another(tmp_path: Path) -> None:
    """Else its frames are drawn apart, counted as independent, and scored by models that have seen the others."""
    table = "path,labels,group,sequence\na.jpg,dog,,s1\nb.jpg,dog,,s1\nc.jpg,dog,site 4,s2\nd.jpg,dog,,\n"
    assert accept(write(tmp_path, table)).rows["group"].fillna("").tolist() == ["sequence s1"] * 2 + ["site 4", ""]
    table = "path,labels,sequence\na.jpg,dog,s1\nb.jpg,dog,\n"
    assert accept(write(tmp_path, table)).rows["group"].fillna("").tolist() == ["sequence s1", ""]
