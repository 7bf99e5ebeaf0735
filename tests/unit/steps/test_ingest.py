"""The ingest stage on real and broken picture files."""

from __future__ import annotations

import csv
import hashlib
import logging
import os
import shutil
import signal
import unicodedata
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image

from capnet.config import Data, Ingest, Params, parse
from capnet.contracts import read_classes, read_manifest
from capnet.data.checks.files import see
from capnet.errors import ConfigError, DataError
from capnet.stages import run


def picture(path: Path, width: int = 40, height: int = 30, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)).save(path)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    for number, name in enumerate(("a.jpg", "b.png", "c.jpg")):
        picture(root / "images" / name, 40 + number, 30, number)
    (root / "labels.csv").write_text("path,labels,group\nimages/c.jpg,dog|cat,g\nimages/a.jpg,,\nimages/b.png,cat,g\n")
    return root


def ingest(data: Path, out: Path, links: str = "inside", **settings: Any) -> dict[str, float]:
    params = Params(data=Data.model_validate({"links": links}), ingest=Ingest.model_validate(settings))
    return run("ingest", params, {"data": data}, {"manifest": out})


def refused(data: Path, out: Path, **settings: Any) -> list[str]:
    with pytest.raises(DataError) as caught:
        ingest(data, out, **settings)
    assert caught.value.exit_code == 3
    assert not out.exists()
    assert [path for path in out.parent.iterdir() if path != data] == []  # nothing half-written
    return [str(problem) for problem in caught.value.problems]


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
    found = refused(data, tmp_path / "manifest")
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
    assert len(found) == len(expected)
    for text, (what, part) in zip(found, expected, strict=True):
        assert what in text
        assert part in text


@pytest.mark.parametrize(("written", "there"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_advice_for_paths_that_look_right(
    data: Path, tmp_path: Path, written: Literal["NFC", "NFD"], there: Literal["NFC", "NFD"]
) -> None:
    """A name with accents copied from a Mac, and a path that begins with the data folder's own name."""
    name = "K\u00e4se.jpg"
    (data / "images/a.jpg").rename(data / "images" / unicodedata.normalize(there, name))
    (data / "labels.csv").write_text(
        f"path,labels\nimages/{unicodedata.normalize(written, name)},dog\ndata/images/c.jpg,cat\n"
    )
    accents, folder = refused(data, tmp_path / "manifest")
    assert f"write the name in {there}" in accents
    assert "relative to the data folder: write images/c.jpg" in folder


@pytest.mark.parametrize("cut", [3, 40, 400, 0.1, 0.5, 0.9])
def test_truncation_is_found_wherever_training_would_fail(data: Path, tmp_path: Path, shared: Path, cut: float) -> None:
    """The shortened decoding of ingest must find what a full decoding finds."""
    source = shared / "data/coco_mini/val2017"
    for number, path in enumerate(sorted(source.glob("*.jpg"))[:6]):
        whole = path.read_bytes()
        part = whole[: int(len(whole) * cut)] if cut < 1 else whole[: -int(cut)]
        (data / f"images/{number}.jpg").write_bytes(part)
        with pytest.raises(OSError, match=r"(?i)truncated"), Image.open(data / f"images/{number}.jpg") as image:
            image.load()
    rows = "".join(f"images/{number}.jpg,cat\n" for number in range(6))
    (data / "labels.csv").write_text("path,labels\n" + rows)
    assert len([text for text in refused(data, tmp_path / "manifest") if "does not decode" in text]) == 6


def test_a_picture_that_unpacks_to_gigabytes_is_refused(data: Path, tmp_path: Path) -> None:
    Image.new("1", (20000, 20000)).save(data / "images/a.jpg", format="PNG")
    (text,) = refused(data, tmp_path / "manifest")
    assert "images/a.jpg" in text


def test_empty_data_folder(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (text,) = refused(tmp_path / "data", tmp_path / "manifest")
    assert "the data folder is empty" in text


@pytest.mark.parametrize(("name", "told"), [("Empty", True), ("no finding", True), ("fox", False)])
def test_a_class_that_reads_like_no_class_at_all_is_named(
    data: Path, tmp_path: Path, name: str, told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    (data / "labels.csv").write_text(f"path,labels\nimages/a.jpg,{name}\n")
    with caplog.at_level(logging.WARNING, logger="capnet"):
        ingest(data, tmp_path / "manifest")
    assert [f"class '{name}' is learned like any other" in record.getMessage() for record in caplog.records] == [
        True
    ] * told


def test_a_class_that_looks_like_two_is_named(data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (data / "labels.csv").write_text("path,labels\nimages/a.jpg,fox;owl\nimages/c.jpg,cat\n")
    with caplog.at_level(logging.WARNING, logger="capnet"):
        ingest(data, tmp_path / "manifest")
    (record,) = caplog.records
    assert record.getMessage().startswith(
        "1 of 2 classes looks like several labels: 'fox;owl'; ingest.separator is '|'"
    )


@pytest.mark.parametrize("mode", ["I;16", "I;16B"])
def test_pictures_of_16_bits_that_are_nearly_black_are_named(
    data: Path, tmp_path: Path, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    for name, white in (("dark", 4095), ("scaled", 65535), ("blank", 0)):
        values = np.linspace(0, white, 1200).astype(">u2" if mode == "I;16B" else "<u2")
        Image.frombytes(mode, (40, 30), values.tobytes()).save(data / "images" / f"{name}.tif")
        with (data / "labels.csv").open("a") as table:
            table.write(f"images/{name}.tif,cat,g\n")
    with caplog.at_level(logging.WARNING, logger="capnet"):
        ingest(data, tmp_path / "manifest")
        (record,) = caplog.records
        assert record.getMessage() == (
            "1 of 3 images of 16 bits are nearly black: in 'images/dark.tif' no value is above 4095 of 65535. Where a"
            " camera or scanner uses fewer bits, scale the values to 0 to 65535 first: 16 bits are divided by 257"
        )
        ingest(data, tmp_path / "unread", images="header")
    assert len(caplog.records) == 1, "no pixel was read"


@pytest.fixture(scope="module")
def thousands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3,000 rows of one picture's bytes, some of them missing, empty or cut."""
    root = tmp_path_factory.mktemp("thousands")
    picture(root / "good.png", 20, 20)
    whole = (root / "good.png").read_bytes()
    (root / "images").mkdir()
    for number in range(3000):
        data = {7: b"", 1500: whole[:60], 2999: b"<html>"}.get(number, whole)
        if number != 20:
            (root / f"images/{number:04d}.png").write_bytes(data)
    (root / "good.png").unlink()
    (root / "labels.csv").write_text(
        "path,labels\n" + "".join(f"images/{number:04d}.png,cat\n" for number in range(3000))
    )
    return root


def test_one_bad_picture_does_not_end_an_ingest_of_thousands(
    thousands: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="capnet"):
        metrics = ingest(thousands, tmp_path / "manifest")
    assert metrics == {"pictures": 2996.0, "classes": 1.0, "without_label": 0.0, "left_out": 4.0}
    with open(tmp_path / "manifest" / "left_out.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [f"images/{number:04d}.png" for number in (7, 20, 1500, 2999)]
    assert [row["reason"].split(":")[0].split("(")[0].strip() for row in rows] == [
        "empty file",
        "missing",
        "does not decode",
        "not a picture",
    ]
    (record,) = caplog.records
    assert "4 of 3000 images left out" in record.getMessage()
    assert "images/1500.png" in record.getMessage()
    frame = read_manifest(tmp_path / "manifest" / "manifest.parquet")
    assert len(frame) == 2996
    assert not set(frame["path"]) & {row["path"] for row in rows}


def test_the_setting_says_how_many_bad_pictures_are_too_many(thousands: Path, tmp_path: Path) -> None:
    texts = refused(thousands, tmp_path / "manifest", bad_images=0.0)
    assert len(texts) == 4
    assert "(4 of 3000 are bad: beyond ingest.bad_images = 0 none is left out)" in texts[0]
    texts = refused(thousands, tmp_path / "manifest", bad_images=3 / 3000)
    assert len(texts) == 4
    assert "(4 of 3000 are bad: beyond ingest.bad_images = 0.001 none is left out)" in texts[0]
    ingest(thousands, tmp_path / "manifest", bad_images=4 / 3000)


def test_without_a_picture_that_can_be_used_there_is_no_manifest(data: Path, tmp_path: Path) -> None:
    for name in ("a.jpg", "b.png", "c.jpg"):
        (data / "images" / name).write_text("this is no picture")
    first, *named = refused(data, tmp_path / "manifest", bad_images=1.0)
    assert "no image can be used: 3 of 3 are bad" in first
    assert [f"images/{name}" in text for name, text in zip(("c.jpg", "a.jpg", "b.png"), named, strict=True)] == [
        True
    ] * 3
    assert "beyond" not in "".join(named)
    picture(data / "images/a.jpg")
    assert ingest(data, tmp_path / "manifest", bad_images=1.0)["pictures"] == 1.0


def test_a_bad_picture_of_a_published_list_stops_the_ingest(thousands: Path, tmp_path: Path) -> None:
    (thousands / "train.txt").write_text("images/0001\nimages/1500\n")
    (text,) = refused(thousands, tmp_path / "manifest", train_list="train.txt")
    assert "images/1500.png" in text


def test_the_header_finds_what_is_no_picture_and_not_what_is_cut(thousands: Path, tmp_path: Path) -> None:
    assert ingest(thousands, tmp_path / "manifest", images="header")["left_out"] == 3.0


def test_listed_opens_no_picture(data: Path, tmp_path: Path) -> None:
    (data / "labels.csv").write_text(
        "path,labels,width,height,sha256\nnowhere/a.jpg,cat,640,480,abc\nnowhere/b.jpg,dog,,,\n"
    )
    ingest(data, tmp_path / "manifest", images="listed")
    frame = read_manifest(tmp_path / "manifest" / "manifest.parquet")
    assert frame["width"].iloc[0] == 640
    assert frame["sha256"].iloc[0] == "abc"
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


def test_links_may_lead_inside_the_data_folder_and_not_out_of_it(data: Path, tmp_path: Path) -> None:
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    picture(outside / "folder/x.png")
    (data / "near.jpg").symlink_to("images/a.jpg")
    (data / "photos").symlink_to("images")
    (data / "file.png").symlink_to(outside / "folder/x.png")
    (data / "away").symlink_to(outside / "folder")
    (data / "gone.png").symlink_to(outside / "nothing.png")
    (data / "loop").symlink_to(data / "loop")
    rows = "near.jpg,cat\nphotos/c.jpg,cat\nfile.png,cat\naway/x.png,cat\ngone.png,cat\nloop/x.png,cat\n"
    (data / "labels.csv").write_text("path,labels\n" + rows)
    found = refused(data, tmp_path / "manifest")
    links = [text for text in found if "leaves the data folder" in text]
    assert [text.splitlines()[1] for text in links] == [
        "  where: labels.csv row 4",
        "  where: labels.csv row 5",
        "  where: labels.csv row 6",
    ]
    assert all("data.links: anywhere" in text for text in links)
    (data / "labels.csv").write_text("path,labels\n" + rows.split("gone.png")[0])
    assert ingest(data, tmp_path / "manifest", links="anywhere")["pictures"] == 4.0


@pytest.mark.parametrize("images", ["decode", "header"])
def test_a_file_behind_a_link_that_leaves_the_data_folder_is_not_opened(
    data: Path, tmp_path: Path, images: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    (outside / "secret").write_text("this is no picture")
    (data / "images/b.png").unlink()
    (data / "images/b.png").symlink_to(outside / "secret")
    (data / "images/c.jpg").write_text("nor is this")
    opened = []
    monkeypatch.setattr(
        "capnet.data.images.image_files.read_bytes", lambda path: opened.append(path.name) or path.read_bytes()
    )
    link, broken = refused(data, tmp_path / "manifest", images=images)
    assert "'images/b.png' is reached through a link that leaves the data folder" in link
    assert "'images/c.jpg': not a picture" in broken
    assert "labels.csv row 2" in broken
    assert sorted(opened) == ["a.jpg", "c.jpg"]


def test_hostile_paths_are_all_refused_with_their_rows(data: Path, tmp_path: Path) -> None:
    hostile = [
        "/etc/passwd",
        "../../etc/passwd",
        "images/../../x.jpg",
        "C:\\boot.ini",
        "file:///etc/passwd",
        "images\\a.jpg",
    ]
    (data / "labels.csv").write_text(
        "path,labels\n" + "".join(f"{path},cat\n" for path in hostile) + "images/a.jpg,cat\n"
    )
    found = refused(data, tmp_path / "manifest")
    assert len(found) == len(hostile)
    assert all(f"labels.csv row {number}" in text for number, text in enumerate(found, start=2))


@pytest.mark.parametrize(
    ("form", "setting", "value"),
    [
        ("csv", "labels", "/etc/passwd"),
        ("csv", "classes", "../classes.csv"),
        ("csv", "train_list", "/etc/hostname"),
        ("csv", "test_list", "../secret.txt"),
        ("coco", "coco", {"train": "../a.json"}),
        ("voc", "voc", {"train": "../VOC2012/x"}),
    ],
)
def test_settings_that_name_a_file_outside_are_refused_at_start(form: str, setting: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=r"absolute|leaves the data folder") as caught:
        parse({"data": {"format": form}, "ingest": {setting: value}})
    assert f"ingest.{setting}" in str(caught.value)


@pytest.mark.parametrize("name", ["labels.csv", "classes.csv", "lists/train.txt"])
def test_a_label_file_behind_a_link_that_leaves_the_data_folder_is_not_opened(
    data: Path, tmp_path: Path, name: str
) -> None:
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    (data / "classes.csv").write_text("name\ncat\ndog\n")
    (data / "lists").mkdir()
    (data / "lists/train.txt").write_text("images/c\n")
    (data / name).rename(outside / "file")
    (data / name).symlink_to(outside / "file")
    (text,) = refused(data, tmp_path / "manifest", train_list="lists/train.txt")
    assert f"{name!r} is reached through a link that leaves the data folder" in text
    ingest(data, tmp_path / "manifest", links="anywhere", train_list="lists/train.txt")


def test_a_pipe_among_the_pictures_is_left_out_and_not_waited_for(data: Path, tmp_path: Path) -> None:
    os.mkfifo(data / "images/pipe.jpg")
    with open(data / "labels.csv", "a") as file:
        file.write("images/pipe.jpg,cat,\n")

    def waited(*_: object) -> None:
        raise TimeoutError("the pipe was opened")

    before = signal.signal(signal.SIGALRM, waited)
    signal.alarm(20)
    try:
        assert ingest(data, tmp_path / "manifest", bad_images=1.0)["left_out"] == 1.0
        assert "pipe" in see("images/pipe.jpg", str(data), full=False, dhashes=True).fault
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


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
