"""Images that people labelled later join annotations of any format; every mistake in their table is named."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pandas as pd
import pytest

from capnet.config import parse
from capnet.data.annotations.added import add_images, headers_elsewhere
from capnet.data.annotations.paths import DataFolder
from capnet.data.annotations.reading import read_annotations
from capnet.data.annotations.rows import Annotations
from capnet.errors import DataError

TABLE = "path,labels,group\na.jpg,fox|owl,north\nb.jpg,,north\n"


def read(folder: Path, *texts: str, **settings: object) -> tuple[Annotations, int]:
    """The annotations of a folder with ``texts`` as its tables of added images: 1.csv, 2.csv, ..."""
    (folder / "added").mkdir(exist_ok=True)
    for number, text in enumerate(texts):
        (folder / "added" / f"{number + 1}.csv").write_text(text)
    params = parse({"data": {"format": "csv"}} | settings)
    data = DataFolder(folder)
    return add_images(read_annotations(data, params), data, params.ingest)


def problems(folder: Path, *texts: str) -> list[str]:
    (folder / "labels.csv").write_text(TABLE)
    return [str(problem) for problem in read(folder, *texts)[0].problems]


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
    assert [annotations.where(row) for row in (0, 3)] == ["labels.csv row 2", "added/1.csv row 3"]
    (warning,) = annotations.warnings
    assert warning.startswith("1 of 2 images of added have no group")


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


@pytest.mark.parametrize("name", ["July.CSV", "July.CSV.GZ", "July.PARQUET"])
def test_the_ending_of_a_table_may_have_capitals(tmp_path: Path, name: str) -> None:
    (tmp_path / "labels.csv").write_text(TABLE)
    (tmp_path / "added").mkdir()
    text, path = "path,labels\nc.jpg,owl\n", tmp_path / "added" / name
    if name.endswith("PARQUET"):
        pd.DataFrame({"path": ["c.jpg"], "labels": ["owl"]}).to_parquet(path)
    else:
        path.write_bytes(gzip.compress(text.encode()) if name.endswith("GZ") else text.encode())
    annotations, added = read(tmp_path)
    assert (added, annotations.problems) == (1, [])
    assert annotations.rows["labels"].tolist()[-1] == [1]


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
        assert [image.path for images in annotations.left_out.values() for image in images] == left
        assert len(annotations.left_out) == len(left)


@pytest.mark.parametrize(
    ("row", "what"),
    [
        (
            "./a.jpg,fox",
            "path 'a.jpg' is in the annotations already\n  where: added/1.csv row 2, first in labels.csv row 2",
        ),
        (
            "a.png,fox",
            "image id 'a' is in the annotations already\n  where: added/1.csv row 2, first in labels.csv row 2",
        ),
        ("c.jpg,foxx", "label 'foxx'"),
        ("c.jpg,wolf", "label 'wolf' is not in the annotations"),
        ("c.jpg,wolf", "add the class to the annotations, or correct the label"),
        ("../c.jpg,fox", "leaves the data folder"),
        ("c.jpg,fox\nc.jpg,owl", "path 'c.jpg' appears twice"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, row: str, what: str) -> None:
    (problem,) = problems(tmp_path, f"path,labels\n{row}\n")
    assert what in problem
    assert "1.csv" in problem


@pytest.mark.parametrize("text", ["", "path,labels\n", "image;labels\nc.jpg;fox\n", "path\nc.jpg\n"])
def test_a_table_that_says_nothing_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "labels.csv").write_text(TABLE)
    with pytest.raises(DataError, match=r"1\.csv"):
        read(tmp_path, text)


def test_mistakes_of_all_tables_are_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(TABLE)
    with pytest.raises(DataError) as error:
        read(tmp_path, "image;labels\nc.jpg;fox\n", "file,labels\nc.jpg,fox\n", "", "path,labels\nc.jpg,wolf\n")
    where = [problem.where.removeprefix(f"{tmp_path}/") for problem in error.value.problems]
    assert where == ["added/1.csv row 1", "added/2.csv row 1", "added/3.csv", "added/4.csv row 2, column labels"]


def test_tables_that_are_elsewhere_are_known(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(TABLE)
    for name in ("july.csv", "corrections.csv", "classes.csv", "added.csv"):
        (tmp_path / name).write_text("path,labels,unknown\nc.jpg,fox,\n")
    (tmp_path / "notes.csv").write_text("path,weather\nc.jpg,rain\n")
    (tmp_path / "damaged.csv").write_bytes(b"\0\xff")
    (tmp_path / "nowhere.csv").symlink_to("missing.csv")
    (tmp_path / "out.csv").symlink_to("../labels.csv")
    (tmp_path / "folder.csv").mkdir()
    pd.DataFrame({"path": ["c.jpg"], "labels": [["fox"]]}).to_parquet(tmp_path / "june.parquet")
    (tmp_path / "damaged.parquet").write_bytes(b"PAR1")
    settings = parse({"data": {"format": "csv"}}).ingest
    headers = headers_elsewhere(DataFolder(tmp_path), settings)
    labelled = [name for name, header in headers.items() if {"path", "labels"} <= header]
    assert labelled == ["added.csv", "july.csv", "june.parquet"]
    assert headers["notes.csv"] == {"path", "weather"}
    assert headers["damaged.csv"] == headers["nowhere.csv"] == set()
    assert not {"labels.csv", "corrections.csv", "classes.csv", "out.csv"} & headers.keys()


def test_without_a_table_nothing_changes(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(TABLE)
    params = parse({"data": {"format": "csv"}})
    data, annotations = DataFolder(tmp_path), read_annotations(DataFolder(tmp_path), params)
    for _ in range(2):
        result, added = add_images(annotations, data, params.ingest)
        assert (added, result.rows, list(result.warnings)) == (0, annotations.rows, [])
        (tmp_path / "added").mkdir(exist_ok=True)
        (tmp_path / "added" / "._july.csv").write_bytes(b"\0\5\x16\7")  # as macOS leaves them on other disks
        (tmp_path / "added" / "1.jpg").touch()
    (tmp_path / "added" / "july.xlsx").touch()
    assert add_images(annotations, data, params.ingest)[0].warnings == [
        "added/july.xlsx is not read: save it as CSV UTF-8 in the spreadsheet program"
    ]
    (tmp_path / "added" / "july.xlsx").rename(tmp_path / "added" / "july.tsv")
    for name in ("anna", "images", "notes.csv.d"):
        (tmp_path / "added" / name).mkdir()
        (tmp_path / "added" / name / ("1.CSV" if name == "anna" else "._1.csv")).write_text("path,labels\nc.jpg,fox\n")
    assert add_images(annotations, data, params.ingest)[0].warnings == [
        "added/july.tsv is not read: save it as CSV UTF-8 in the spreadsheet program",
        "tables in added/anna are not read: move them into added",
    ]
    for name in ("2.csv", "3.csv"):
        (tmp_path / "added" / name).symlink_to("nowhere" if name == "3.csv" else tmp_path.parent / "out.csv")
        with pytest.raises(DataError, match="leaves the data folder" if name == "2.csv" else "3.csv"):
            add_images(annotations, data, params.ingest)
        (tmp_path / "added" / name).unlink()


def test_the_setting_may_name_one_table(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(TABLE)
    (tmp_path / "later.csv").write_text("path,labels\nc.jpg,owl\n")
    params = parse({"data": {"format": "csv"}, "ingest": {"added": "later.csv"}})
    data = DataFolder(tmp_path)
    assert add_images(read_annotations(data, params), data, params.ingest)[0].rows["path"].tolist()[2:] == ["c.jpg"]


def test_tables_of_two_people_and_a_page_that_is_saved_twice(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(TABLE)
    header = "path,labels,unknown,split,group\n"
    once = header + "c.jpg,fox|owl,,train,\nd.jpg,,owl,,north\n"
    twice = header + "./c.jpg,owl|fox,,train,\nd.jpg,,owl,,north\ne.jpg,fox,,,\n"
    annotations, added = read(tmp_path, once, twice, "path,labels\nf.jpg,\n")
    assert (added, annotations.problems) == (4, [])
    assert annotations.rows["path"].tolist()[2:] == ["c.jpg", "d.jpg", "e.jpg", "f.jpg"]
    assert annotations.rows["labels"].tolist()[2:] == [[0, 1], [], [0], []]
    assert annotations.where(4) == "added/2.csv row 4"
    assert annotations.rows.index.tolist() == list(range(6))


@pytest.mark.parametrize(
    "row", ["fox,,train,,", "fox|owl,,,,", "fox,owl,train,,", "fox|owl,,train,north,", "fox|owl,,train,,night"]
)
def test_tables_that_differ_are_refused(tmp_path: Path, row: str) -> None:
    header = "path,labels,unknown,split,group,slice\n"
    (problem,) = problems(tmp_path, header + "c.jpg,fox|owl,,train,,\n", header + f"c.jpg,{row}\n")
    assert "'c.jpg' is in an earlier table already, with other labels, split, group or slice" in problem
    assert "added/2.csv row 2, first in added/1.csv row 2" in problem


def test_an_image_that_the_format_lists_keeps_its_id_location_and_burst(tmp_path: Path) -> None:
    images = [
        {"id": n, "file_name": f"{n}.jpg", "location": f"site {n % 2}", "seq_id": f"burst {n % 2}"} for n in range(5)
    ]
    traps = {
        "images": images,
        "categories": [{"id": 1, "name": "fox"}],
        "annotations": [{"id": 1, "image_id": 0, "category_id": 1}],
    }
    (tmp_path / "traps.json").write_text(json.dumps(traps))
    data, ingest = {"format": "camera_traps"}, {"camera_traps": {"file": "traps.json", "images": "./a"}}
    table = "path,labels,group,image_id\na/1.jpg,fox,,\na/2.jpg,fox,elsewhere,mine\nnew/9.jpg,fox,,\n"
    annotations, added = read(tmp_path, table, table, data=data, ingest=ingest)  # saved twice
    rows = annotations.rows[["path", "group", "sequence"]].fillna("")
    assert annotations.rows["image_id"].tolist() == ["0", "1", "mine", "new/9"]
    assert (added, annotations.problems) == (3, [])
    assert list(zip(rows["path"], rows["group"], rows["sequence"], strict=True)) == [
        ("a/0.jpg", "site 0", "burst 0"),
        ("a/1.jpg", "site 1", "burst 1"),
        ("a/2.jpg", "elsewhere", "burst 0"),
        ("new/9.jpg", "", ""),
    ]
    assert [image.path for images in annotations.left_out.values() for image in images] == ["./a/3.jpg", "./a/4.jpg"]
    relocated, alone = annotations.warnings
    assert alone.startswith("1 of 3 images of added have no group")
    assert "1 image of added with another group than the location" in relocated
    assert "a/2.jpg ('elsewhere' for 'site 0'). Where" in relocated


def test_so_does_one_that_the_format_calls_corrupt(tmp_path: Path) -> None:
    images = [
        {"id": n, "file_name": f"{n}.jpg", "location": f"site {n % 2}", "seq_id": 5, "corrupt": n > 0} for n in range(4)
    ]
    traps = {
        "images": images,
        "categories": [{"id": 1, "name": "fox"}],
        "annotations": [{"id": 1, "image_id": 0, "category_id": 1}],
    }
    (tmp_path / "traps.json").write_text(json.dumps(traps))
    data, ingest = {"format": "camera_traps"}, {"camera_traps": {"file": "traps.json", "images": "a"}}
    annotations, added = read(tmp_path, "path,labels\na/1.jpg,fox\na/2.jpg,\n", data=data, ingest=ingest)
    rows = annotations.rows[["path", "group", "sequence"]]
    assert (added, annotations.problems, annotations.warnings) == (2, [], [])
    assert list(rows.itertuples(index=False, name=None)) == [
        ("a/0.jpg", "site 0", "site 0 / 5"),
        ("a/1.jpg", "site 1", "site 1 / 5"),
        ("a/2.jpg", "site 0", "site 0 / 5"),
    ]
    assert [image.path for images in annotations.left_out.values() for image in images] == ["a/3.jpg"]


@pytest.mark.parametrize("label", ["no", "yes"])
def test_answers_of_a_review_are_no_images(tmp_path: Path, label: str) -> None:
    """The advice was to call the column of classes labels: a no would have become a label."""
    (tmp_path / "labels.csv").write_text(TABLE)
    with pytest.raises(DataError, match="corrections of single labels") as caught:
        read(tmp_path, "path,labels\nc.jpg,fox\n", f"path,class,label\na.jpg,fox,{label}\n")
    (problem,) = caught.value.problems
    assert problem.where == "added/2.csv"
    assert problem.todo == "move it to corrections.csv"
