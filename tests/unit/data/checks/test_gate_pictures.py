"""The data gate on pictures: missing, changed, damaged, alike, or outside the data folder."""

from __future__ import annotations

import errno
import os
import tarfile
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image
from unit.data.checks import good_split
from unit.data.checks.good_split import CLASSES, SETTINGS, USUALLY_LEFT_OUT, check_split, draw, failed, not_checked

from capnet.config import Validate
from capnet.contracts import sha256_file
from capnet.data.checks.gate import check_split as findings_of
from capnet.errors import CapnetError

frame = good_split.frame


def test_a_missing_file_fails(frame: pd.DataFrame, tmp_path: Path) -> None:
    (tmp_path / "images/4.png").unlink()
    result = failed(check_split(frame, CLASSES, tmp_path, SETTINGS))
    assert list(result) == ["pictures_present"]
    assert result["pictures_present"].offending == [
        {"image_id": "p4", "path": "images/4.png", "split": "val", "value": "images/4.png"}
    ]


@pytest.mark.parametrize("images", ["header", "full"])
def test_an_image_that_the_disk_does_not_give_is_not_called_broken(
    frame: pd.DataFrame, tmp_path: Path, images: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The advice was to replace the file, or to take its row out."""

    def fail(path: Path) -> bytes:
        if path.name == "4.png":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return path.read_bytes()

    for name in ("read_bytes", "file_or_bytes"):
        monkeypatch.setattr(f"capnet.data.checks.files.{name}", fail)
    with pytest.raises(CapnetError, match=r"images/4.png.*Input/output error") as caught:
        check_split(frame, CLASSES, tmp_path, Validate(min_positives=1, images=images))
    (problem,) = caught.value.problems
    assert "again" in problem.todo


@pytest.mark.parametrize("severity", ["off", "warning", "critical"])
def test_a_picture_saved_again_smaller_is_a_near_duplicate(frame: pd.DataFrame, tmp_path: Path, severity: str) -> None:
    with Image.open(tmp_path / "images/0.png") as image:
        image.resize((80, 80), Image.Resampling.BICUBIC).save(tmp_path / "images/8.png")
    frame.loc[8, ["width", "height"]] = 80
    checks = check_split(frame, CLASSES, tmp_path, Validate(min_positives=1, near_duplicates=severity))
    result = failed(checks)
    if severity == "off":
        assert result == {}
        assert not_checked(checks) == {
            **USUALLY_LEFT_OUT,
            "near_duplicates_in_one_split": "validate.near_duplicates is off",
            "bursts_in_one_split": "validate.near_duplicates is off",
        }
    else:
        assert list(result) == ["near_duplicates_in_one_split"]
        check = result["near_duplicates_in_one_split"]
        assert check.severity == severity
        assert {row["image_id"]: row["value"] for row in check.offending} == {
            "p0": "images/8.png",
            "p8": "images/0.png",
        }


@pytest.mark.parametrize("unhashed", [[0], [8], [1, 5], list(range(9))])
def test_of_pictures_without_a_hash_copies_are_found_too(
    frame: pd.DataFrame, tmp_path: Path, unhashed: list[int]
) -> None:
    """ingest.images: listed takes hashes from the table, which may lack some."""
    (tmp_path / "images/8.png").write_bytes((tmp_path / "images/0.png").read_bytes())
    frame.loc[unhashed, "sha256"] = None
    result = failed(check_split(frame, CLASSES, tmp_path, SETTINGS))
    assert list(result) == ["near_duplicates_in_one_split"]
    assert {row["image_id"] for row in result["near_duplicates_in_one_split"].offending} == {"p0", "p8"}


def test_pictures_without_structure_are_no_near_duplicates(frame: pd.DataFrame, tmp_path: Path) -> None:
    for number, colour in ((0, "white"), (1, "white"), (2, "black")):
        Image.new("RGB", (96, 96), colour).save(tmp_path / f"images/{number}.png")
    assert failed(check_split(frame, CLASSES, tmp_path, SETTINGS)) == {}


def test_links_out_of_the_data_folder_fail_and_are_not_opened(frame: pd.DataFrame, tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    elsewhere.mkdir()
    root.mkdir()
    (tmp_path / "images").rename(root / "images")
    (root / "images/4.png").rename(elsewhere / "secret.png")
    (root / "images/4.png").symlink_to(elsewhere / "secret.png")
    (root / "images/5.png").rename(root / "real.png")
    (root / "images/5.png").symlink_to("../real.png")
    checks = check_split(frame, CLASSES, root, SETTINGS)
    result = failed(checks)
    assert list(result) == ["paths_inside_data"]
    assert [(row["path"], row["value"]) for row in result["paths_inside_data"].offending] == [
        ("images/4.png", "a link leads out of the data folder")
    ]
    assert failed(findings_of(frame, CLASSES, root, SETTINGS, links="anywhere")[0]) == {}


def test_a_picture_that_changed_since_ingest_is_named(frame: pd.DataFrame, tmp_path: Path) -> None:
    draw(tmp_path / "images/4.png", 99)  # the same size
    frame["sha256"] = [sha256_file(tmp_path / path) for path in frame["path"]]
    draw(tmp_path / "images/5.png", 98)
    with Image.open(tmp_path / "images/6.png") as image:
        image.resize((97, 96)).save(tmp_path / "images/6.png")
    header = failed(check_split(frame, CLASSES, tmp_path, SETTINGS))
    assert {row["image_id"]: row["value"] for row in header["pictures_unchanged"].offending} == {
        "p6": "97 x 96 pixels, the table says 96 x 96"
    }
    full = failed(check_split(frame, CLASSES, tmp_path, SETTINGS.model_copy(update={"images": "full"})))
    assert {row["image_id"]: row["value"] for row in full["pictures_unchanged"].offending} == {
        "p5": "other bytes",
        "p6": "97 x 96 pixels, the table says 96 x 96",
    }


def test_damage_behind_the_header_needs_the_full_look(frame: pd.DataFrame, tmp_path: Path) -> None:
    whole = (tmp_path / "images/4.png").read_bytes()
    (tmp_path / "images/4.png").write_bytes(whole[: len(whole) // 2])
    quick = SETTINGS.model_copy(update={"near_duplicates": "off"})
    assert failed(check_split(frame, CLASSES, tmp_path, quick)) == {}
    frame["sha256"] = [sha256_file(tmp_path / path) for path in frame["path"]]
    result = failed(check_split(frame, CLASSES, tmp_path, quick.model_copy(update={"images": "full"})))
    assert list(result) == ["pictures_decode"]
    assert "truncated" in result["pictures_decode"].offending[0]["value"]


def test_pictures_in_a_shard_are_looked_at(frame: pd.DataFrame, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        for number in range(8):
            tar.add(tmp_path / f"images/{number}.png", f"{number}.png")
    frame["path"] = [f"shard.tar/{number}.png" for number in range(9)]
    for pictures in ("header", "full"):
        frame["sha256"] = [sha256_file(tmp_path / f"images/{number}.png") for number in range(9)]
        result = failed(check_split(frame, CLASSES, tmp_path, SETTINGS.model_copy(update={"images": pictures})))
        assert list(result) == ["pictures_present"] or list(result) == ["pictures_decode"]
        assert [row["path"] for check in result.values() for row in check.offending] == ["shard.tar/8.png"]
