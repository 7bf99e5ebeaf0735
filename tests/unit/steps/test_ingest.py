"""The ingest stage: what the manifest holds, and mistakes in tables and lists."""

from __future__ import annotations

import csv
import errno
import hashlib
import logging
import os
import shutil
import unicodedata
from pathlib import Path
from typing import Literal

import pytest

from capnet.contracts import read_classes, read_manifest
from capnet.errors import CapnetError
from tests.unit.steps import ingested
from tests.unit.steps.ingested import ingest, picture, refused

data = ingested.data


def test_manifest_holds_sizes_and_hashes_in_the_order_of_the_table(data: Path, tmp_path: Path) -> None:
    assert ingest(data, tmp_path / "manifest") == {"pictures": 3.0, "classes": 2.0, "without_label": 1.0}
    frame = read_manifest(tmp_path / "manifest" / "manifest.parquet")
    assert frame["path"].tolist() == ["images/c.jpg", "images/a.jpg", "images/b.png"]
    assert frame["image_id"].tolist() == ["images/c", "images/a", "images/b"]
    assert [list(row) for row in frame["labels"]] == [[0, 1], [], [0]]
    assert frame["width"].tolist() == [42, 40, 41]
    assert frame["sha256"].tolist() == [
        hashlib.sha256((data / path).read_bytes()).hexdigest() for path in frame["path"]
    ]
    assert frame["group"].isna().tolist() == [False, True, False]
    assert read_classes(tmp_path / "manifest" / "classes.json").names == ["cat", "dog"]


def test_corrections_under_another_name_are_named(data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("corrections (1).csv", "of anna.csv"):
        (data / name).write_text("path,class,label\n")
    ingest(data, tmp_path / "manifest")
    assert [record.getMessage() for record in caplog.records if "is not read" in record.getMessage()] == [
        "corrections (1).csv is not read: ingest.corrections is corrections.csv",
        "of anna.csv is not read: corrections of a review belong into ingest.corrections = corrections.csv",
    ]


def test_a_table_of_further_images_in_the_wrong_folder_is_named(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("july.csv", "added.csv"):
        (data / name).write_text("path,labels\nimages/new.jpg,cat\n")
    assert "added" not in ingest(data, tmp_path / "manifest")
    first, second = (record.getMessage() for record in caplog.records if "is not read" in record.getMessage())
    assert first == "added.csv is not read: ingest.added is added"
    assert second.startswith("july.csv is not read: tables with path and labels of further images belong")


@pytest.mark.parametrize("name", ["labels.csv", "corrections.csv", "classes.csv", "added/july.csv", "added"])
def test_a_table_that_is_saved_while_images_are_read_is_not_taken_for_read(
    name: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DVC records the tables as they are when the stage ends, and called a manifest of the earlier ones up to date."""

    def read(path: Path) -> bytes:
        if path.name == "b.png":
            file = data / name if name != "added" else data / name / "new.csv"
            file.parent.mkdir(exist_ok=True)
            file.write_text("path,labels\nimages/a.jpg,dog\n")
        return path.read_bytes()

    if name == "added/july.csv":
        picture(data / "new.jpg")
        (data / "added").mkdir()
        (data / name).write_text("path,labels\nnew.jpg,cat\n")
    monkeypatch.setattr("capnet.data.images.image_files.read_bytes", read)
    assert f"changed while stage ingest ran\n  where: {data / name}" in refused(data, tmp_path / "manifest")[0]


@pytest.mark.parametrize("cut", [None, 100])
def test_a_picture_that_is_still_being_copied_is_not_left_out(
    cut: int | None, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DVC records the pictures as they are when the stage ends, and called a manifest without this one up to date."""
    path = data / "images" / "a.jpg"
    whole = path.read_bytes()
    path.unlink() if cut is None else path.write_bytes(whole[:cut])

    def read(name: Path) -> bytes:
        try:
            return name.read_bytes()
        finally:
            if name == path:
                path.write_bytes(whole)

    monkeypatch.setattr("capnet.data.images.image_files.read_bytes", read)
    (text,) = refused(data, tmp_path / "manifest", bad_images=0.9)
    assert f"changed while stage ingest ran\n  where: {data}/images/a.jpg" in text
    ingest(data, tmp_path / "manifest", bad_images=0.9)


def test_a_bad_picture_that_is_not_read_again_is_not_called_changed(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, times = data / "images" / "a.jpg", 0
    path.write_bytes(b"damaged")

    def read(name: Path) -> bytes:
        nonlocal times
        times += name == path
        if times == 2:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return name.read_bytes()

    monkeypatch.setattr("capnet.data.images.image_files.read_bytes", read)
    with pytest.raises(CapnetError, match=os.strerror(errno.ESTALE)) as caught:
        ingest(data, tmp_path / "manifest", bad_images=0.9)
    assert caught.value.exit_code == 1
    assert "changed" not in str(caught.value)


def test_two_runs_give_equal_bytes(data: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        ingest(data, tmp_path / name)
    for name in ("manifest.parquet", "classes.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_broken_pictures_and_wrong_labels_are_reported_together(data: Path, tmp_path: Path) -> None:
    whole = (data / "images/c.jpg").read_bytes()
    (data / "images/c.jpg").write_bytes(whole[: len(whole) * 2 // 3])
    (data / "images/a.jpg").write_bytes(b"")
    (data / "images/text.jpg").write_text("this is no picture")
    with open(data / "labels.csv", "a") as file:
        file.write(
            "images/text.jpg,cat,\nimages/gone.jpg,cat,\nb.png,cat,\nimages/A.jpeg,cat,\nimages,cat,\nimages/x.jpg,cat\n"
        )
    result = refused(data, tmp_path / "manifest")
    expected = [
        ("cells", "row 10"),
        ("'images/c.jpg': does not decode", "row 2"),
        ("'images/a.jpg': empty file", "row 3"),
        ("'images/text.jpg': not a picture", "row 5"),
        ("'images/gone.jpg': missing", "row 6"),
        ("'b.png': missing", "write images/b.png"),
        ("'images/A.jpeg': missing", "did you mean 'images/a.jpg'"),
        ("'images': cannot be read", "row 9"),
    ]
    assert len(result) == len(expected)
    for text, (what, part) in zip(result, expected, strict=True):
        assert what in text
        assert part in text


@pytest.mark.parametrize(("written", "form"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_advice_for_paths_that_look_right(
    data: Path, tmp_path: Path, written: Literal["NFC", "NFD"], form: Literal["NFC", "NFD"]
) -> None:
    """A name with accents copied from a Mac, and a path that begins with the data folder's own name."""
    name = "K\u00e4se.jpg"
    (data / "images/a.jpg").rename(data / "images" / unicodedata.normalize(form, name))
    (data / "labels.csv").write_text(
        f"path,labels\nimages/{unicodedata.normalize(written, name)},dog\ndata/images/c.jpg,cat\n"
    )
    accents, folder = refused(data, tmp_path / "manifest")
    assert f"write the name in {form}" in accents
    assert "relative to the data folder: write images/c.jpg" in folder


def test_a_folder_that_may_not_be_looked_into_hides_no_missing_picture(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as lost+found, which every disk has: root's."""
    (data / "lost+found").mkdir()
    stat = os.stat

    def refuse(path: str | Path, *arguments: object, **names: bool) -> os.stat_result:
        if "lost+found/" in os.fspath(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return stat(path, *arguments, **names)

    (data / "labels.csv").write_text("path,labels\nimages/gone.jpg,dog\n")
    monkeypatch.setattr(os, "stat", refuse)
    (text,) = refused(data, tmp_path / "manifest")
    assert "'images/gone.jpg': missing" in text


@pytest.mark.parametrize("file", ["b.jpg", "K\u00e4se.jpg", "Ka\u0308se.jpg"])
def test_advice_for_a_folder_with_accents_copied_from_a_mac(data: Path, tmp_path: Path, file: str) -> None:
    (data / "Zuga\u0308nge").mkdir()
    (data / "images/a.jpg").rename(data / "Zuga\u0308nge" / file)
    (data / "labels.csv").write_text(f"path,labels\nZug\u00e4nge/{unicodedata.normalize('NFC', file)},dog\n")
    (accents,) = refused(data, tmp_path / "manifest")
    assert "write the name in NFD" in accents


def test_advice_for_a_path_that_is_written_as_in_an_address(data: Path, tmp_path: Path) -> None:
    (data / "images/a.jpg").rename(data / "images/K\u00e4se 1.jpg")
    (data / "labels.csv").write_text("path,labels\nimages/K%C3%A4se%201.jpg,dog\n")
    (text,) = refused(data, tmp_path / "manifest")
    assert "write images/K\u00e4se 1.jpg" in text


def test_empty_data_folder(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (text,) = refused(tmp_path / "data", tmp_path / "manifest")
    assert "the data folder is empty" in text
    assert "dvc pull" not in text


def test_a_clone_without_its_pictures_is_sent_to_dvc(tmp_path: Path) -> None:
    (tmp_path / "data.dvc").write_text("outs: []\n")
    (tmp_path / "outputs").mkdir()
    (text,) = refused(tmp_path / "data", tmp_path / "outputs" / "manifest")
    assert "there is no data folder" in text
    assert f"make data-pull, or dvc pull {tmp_path / 'data.dvc'}" in text


def test_the_command_for_a_folder_with_blanks_can_be_pasted(tmp_path: Path) -> None:
    (tmp_path / "my photos.dvc").write_text("outs: []\n")
    (tmp_path / "outputs").mkdir()
    (text,) = refused(tmp_path / "my photos", tmp_path / "outputs" / "manifest")
    assert f"dvc pull '{tmp_path / 'my photos.dvc'}'" in text


@pytest.mark.parametrize(
    ("name", "is_named"), [("Empty", True), ("no finding", True), ("no_label", True), ("fox", False)]
)
def test_a_class_that_reads_like_no_class_at_all_is_named(
    data: Path, tmp_path: Path, name: str, is_named: bool, caplog: pytest.LogCaptureFixture
) -> None:
    (data / "labels.csv").write_text(f"path,labels\nimages/a.jpg,{name}\n")
    with caplog.at_level(logging.WARNING, logger="capnet"):
        ingest(data, tmp_path / "manifest")
    named, others = (
        [f"class '{name}' is learned like any other"] * is_named,
        "images, 'images/b.png' first, have no row",
    )
    messages = [record.getMessage() for record in caplog.records]
    assert [text for text in named if any(text in message for message in messages)] == named
    assert len(messages) == len(named) + 1
    assert others in messages[-1]


def test_a_class_that_looks_like_two_is_named(data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (data / "labels.csv").write_text("path,labels\nimages/a.jpg,fox;owl\nimages/c.jpg,cat\n")
    with caplog.at_level(logging.WARNING, logger="capnet"):
        ingest(data, tmp_path / "manifest")
    record, _ = caplog.records  # the other one is of images without a row
    assert record.getMessage().startswith(
        "1 of 2 classes looks like several labels: 'fox;owl'; ingest.separator is '|'"
    )


def test_listed_opens_no_picture(data: Path, tmp_path: Path) -> None:
    (data / "labels.csv").write_text(
        f"path,labels,width,height,sha256\nnowhere/a.jpg,cat,640,480,{'Ab' * 32}\nnowhere/b.jpg,dog,,,\n"
    )
    ingest(data, tmp_path / "manifest", images="listed")
    frame = read_manifest(tmp_path / "manifest" / "manifest.parquet")
    assert frame["width"].iloc[0] == 640
    assert frame["sha256"].iloc[0] == "ab" * 32
    assert frame[["width", "height", "sha256"]].iloc[1].isna().all()
    assert "sequence" not in frame


def test_published_lists_are_kept_beside_the_manifest(data: Path, tmp_path: Path) -> None:
    (data / "lists").mkdir()
    (data / "lists/train.txt").write_text("images/c\nimages/a\n")
    ingest(data, tmp_path / "manifest", train_list="lists/train.txt")
    assert (tmp_path / "manifest" / "train_list.txt").read_text() == "images/c\nimages/a\n"
    assert not (tmp_path / "manifest" / "test_list.txt").exists()
    shutil.rmtree(tmp_path / "manifest")
    (data / "lists/test.txt").write_text("images/c\nelephant\n")
    (text,) = refused(data, tmp_path / "other", test_list="lists/test.txt")
    assert "lists/test.txt line 2" in text
    assert "cannot read the id list" in refused(data, tmp_path / "other", train_list="none.txt")[0]


def test_names_in_utf_8_with_spaces_and_marks(data: Path, tmp_path: Path) -> None:
    names = [
        "images/mit Leerzeichen.jpg",
        "images/ä ö ü/€ 10.png",
        "images/日本/写真.jpg",
        "images/it's, 100%.jpg",
        "images/-rf.jpg",
    ]
    for number, name in enumerate(names):
        picture(data / name, 20 + number, 20)
    with open(data / "labels.csv", "w", newline="") as file:
        csv.writer(file).writerows([["path", "labels"], *([name, "cat"] for name in names)])
    ingest(data, tmp_path / "manifest")
    assert read_manifest(tmp_path / "manifest" / "manifest.parquet")["path"].tolist() == names
