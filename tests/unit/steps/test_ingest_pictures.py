"""The ingest stage on broken pictures: which are found, how many may be left out, and what stops it."""

from __future__ import annotations

import csv
import errno
import logging
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from capnet import errors
from capnet.contracts import read_manifest
from capnet.errors import CapnetError, DataError
from tests.unit.data.hostile import png
from tests.unit.steps import ingested
from tests.unit.steps.ingested import ingest, picture, refused

data = ingested.data


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
            "1 of 3 images of 16 bits are nearly black, or nearly white where 0 is white: in 'images/dark.tif' no value"
            " is above 4095 of 65535. Where a camera or scanner uses fewer bits, scale the values to 0 to 65535 first:"
            " 16 bits are divided by 257"
        )
        ingest(data, tmp_path / "unread", images="header")
    assert len(caplog.records) == 1, "no pixel was read"


@pytest.mark.parametrize(("channels", "colour"), [(3, 2), (4, 6), (2, 4)])
def test_colours_of_16_bits_that_are_nearly_black_are_named(
    data: Path, tmp_path: Path, channels: int, colour: int, caplog: pytest.LogCaptureFixture
) -> None:
    """RGB, with transparency, and grey with transparency: Pillow reads them all as 8 bits a channel."""
    for name, white in (("dark", 4095), ("scaled", 65535)):
        values = np.linspace(0, white, 30 * 40 * channels).astype(">u2").reshape(30, 40 * channels)
        if channels in (2, 4):
            values[:, channels - 1 :: channels] = 65535
        rows = b"".join(b"\0" + row.tobytes() for row in values)
        content = png(40, 30, (b"IDAT", zlib.compress(rows)), bits=16, colour=colour)
        (data / "images" / f"{name}.png").write_bytes(content)
        with (data / "labels.csv").open("a") as table:
            table.write(f"images/{name}.png,cat,g\n")
    with caplog.at_level(logging.WARNING, logger="capnet"):
        ingest(data, tmp_path / "manifest")
    (record,) = caplog.records
    assert record.getMessage().startswith("1 of 2 images of 16 bits are nearly black")
    assert "'images/dark.png' no value is above 4095 of 65535" in record.getMessage()


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


@pytest.mark.slow
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
    record, other = caplog.records
    assert "is missing on no image" in other.getMessage()
    assert "4 of 3000 images left out" in record.getMessage()
    assert "images/1500.png" in record.getMessage()
    frame = read_manifest(tmp_path / "manifest" / "manifest.parquet")
    assert len(frame) == 2996
    assert not set(frame["path"]) & {row["path"] for row in rows}


def test_pictures_cut_off_anywhere_hide_no_path_that_is_wrong(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = (data / "images" / "a.jpg").read_bytes()
    for cut in range(2, 12):
        (data / "images" / f"cut{cut}.jpg").write_bytes(whole[:-cut])
    rows = "".join(f"images/cut{cut}.jpg,cat,g\n" for cut in range(2, 12))
    (data / "labels.csv").write_text(f"path,labels,group\nimages/c.jpg,dog,g\n{rows}")
    (data / "added").mkdir()
    (data / "added" / "july.csv").write_text("path,labels,group\nimages/a.jpg,cat,g\njuly/b.jpg,cat,g\n")
    metrics = ingest(data, tmp_path / "out" / "manifest", bad_images=0.9)
    assert (metrics["added"], metrics["left_out"]) == (1, 11)
    (warning,) = [record.getMessage() for record in caplog.records if "images left out" in record.getMessage()]
    assert "image file is truncated: images/cut2.jpg, images/cut3.jpg, images/cut4.jpg and 7 more; " in warning
    assert "missing: july/b.jpg; left_out.csv of the manifest names all" in warning


def test_an_image_whose_name_has_another_unicode_form_is_left_out_with_the_reason(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (data / "images" / "a.jpg").rename(data / "images" / "Ba\u0308r.jpg")
    (data / "labels.csv").write_text("path,labels\nimages/B\u00e4r.jpg,cat\nimages/c.jpg,dog\n")
    assert ingest(data, tmp_path / "manifest", bad_images=0.9)["left_out"] == 1
    (warning,) = [record.getMessage() for record in caplog.records if "images left out" in record.getMessage()]
    assert (
        "To do for the first: the file is there with its accents in another Unicode form: write the name in NFD"
        in warning
    )


@pytest.mark.slow
def test_the_setting_says_how_many_bad_pictures_are_too_many(thousands: Path, tmp_path: Path) -> None:
    texts = refused(thousands, tmp_path / "manifest", bad_images=0.0)
    assert len(texts) == 4
    assert "(4 of 3000 are bad: more than ingest.bad_images = 0; a higher share leaves them out)" in texts[0]
    texts = refused(thousands, tmp_path / "manifest", bad_images=3 / 3000)
    assert len(texts) == 4
    assert "(4 of 3000 are bad: more than ingest.bad_images = 0.001; a higher share leaves them out)" in texts[0]
    ingest(thousands, tmp_path / "manifest", bad_images=4 / 3000)


def test_the_share_itself_is_not_too_many(data: Path, tmp_path: Path) -> None:
    bad, share = 29, 0.58
    assert bad > share * 50, "the product is rounded down"
    for number in range(bad, 50):
        picture(data / f"images/{number}.png", seed=number)
    rows = "".join(f"images/{number}.png,cat|dog\n" for number in range(50))
    (data / "labels.csv").write_text(f"path,labels\n{rows}")
    assert ingest(data, tmp_path / "out" / "manifest", bad_images=share)["left_out"] == bad
    (data / "images/49.png").unlink()
    assert len(refused(data, tmp_path / "manifests" / "manifest", bad_images=share)) == bad + 1


@pytest.mark.parametrize("name", ["a.HEIC", "scan.dcm", "scan.dicom", "scan.nii.gz", "a.jp2"])
def test_a_picture_in_a_format_that_is_not_read_is_to_be_converted(data: Path, tmp_path: Path, name: str) -> None:
    (data / "images" / name).write_bytes(b"\0\0\0\x18ftypheic" + bytes(64))
    (data / "labels.csv").write_text(f"path,labels\nimages/{name},cat\nimages/b.png,cat\n")
    (text,) = refused(data, tmp_path / "manifest")
    assert "convert it to JPEG or PNG" in text


def test_without_a_picture_that_can_be_used_there_is_no_manifest(data: Path, tmp_path: Path) -> None:
    for name in ("a.jpg", "b.png", "c.jpg"):
        (data / "images" / name).write_text("this is no picture")
    first, *named = refused(data, tmp_path / "manifest", bad_images=1.0)
    assert "no image can be used: 3 of 3 are bad" in first
    assert [f"images/{name}" in text for name, text in zip(("c.jpg", "a.jpg", "b.png"), named, strict=True)] == [
        True
    ] * 3
    assert "more than" not in "".join(named)
    picture(data / "images/a.jpg")
    assert ingest(data, tmp_path / "manifest", bad_images=1.0)["pictures"] == 1.0


def test_a_bad_picture_of_a_published_list_stops_the_ingest(thousands: Path, tmp_path: Path) -> None:
    (thousands / "train.txt").write_text("images/0001\nimages/1500\n")
    (text,) = refused(thousands, tmp_path / "manifest", train_list="train.txt")
    assert "images/1500.png" in text


def test_the_header_finds_what_is_no_picture_and_not_what_is_cut(thousands: Path, tmp_path: Path) -> None:
    assert ingest(thousands, tmp_path / "manifest", images="header")["left_out"] == 3.0


def test_a_missing_picture_costs_no_search_for_credentials(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched = []

    def redact(text: str) -> str:
        searched.append(text)
        return text

    monkeypatch.setattr(errors, "redact", redact)
    rows = "".join(f"{folder}/{n}.jpg,red\n" for folder in ("gone", "images") for n in range(1000))
    (data / "labels.csv").write_text(f"path,labels\n{rows}")
    with pytest.raises(DataError, match="1000 images in 'gone' are missing") as caught:
        ingest(data, tmp_path / "manifest")
    assert 1000 <= len(caught.value.problems) <= 1001
    assert len(searched) < 500


@pytest.mark.slow
@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EMFILE])
def test_an_image_that_the_machine_cannot_read_is_not_left_out(
    thousands: Path, tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A moment of a network file system would take good images away, and DVC would not run the stage again."""

    def fail(path: Path) -> bytes:
        if path.name == "0008.png":
            raise OSError(number, os.strerror(number))
        return path.read_bytes()

    monkeypatch.setattr("capnet.data.images.image_files.read_bytes", fail)
    with pytest.raises(CapnetError) as caught:
        ingest(thousands, tmp_path / "manifest", bad_images=0.5)
    (problem,) = caught.value.problems
    assert os.strerror(number) in problem.what
    assert "0008.png" in problem.what
    assert "again" in problem.todo
    assert caught.value.exit_code == 1


def test_a_label_table_that_is_a_broken_link_is_not_called_absent(data: Path, tmp_path: Path) -> None:
    (data / "labels.csv").rename(data / "old.txt")
    (data / "labels.csv").symlink_to("tables/labels.csv")
    (message,) = refused(data, tmp_path / "manifest")
    assert "ingest.labels = 'labels.csv' is no plain file, or a broken link" in message
    assert "rename" not in message
