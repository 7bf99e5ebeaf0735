"""The data gate: each fault alone is found, with its rows, by great_expectations itself."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from capnet.config import Drift, Validate
from capnet.contracts import Classes, make_classes, sha256_file, write_json
from capnet.data.checks.drift import drift_counts
from capnet.data.checks.gate import check_split as findings_of
from capnet.data.checks.rules import Check

CLASSES = make_classes(["cat", "dog", "bird"])
SETTINGS = Validate(min_positives=1)


def draw(path: Path, seed: int) -> None:
    """A picture with coarse structure, unlike that of any other seed."""
    cells = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(cells).resize((96, 96), Image.Resampling.BICUBIC).save(path, quality=95)


@pytest.fixture
def frame(tmp_path: Path) -> pd.DataFrame:
    """Nine good rows, three on each side, and their pictures under tmp_path."""
    rows = []
    for number, side in enumerate(("train", "val", "test") * 3):
        draw(tmp_path / f"images/{number}.png", number)
        labels = [[0, 1], [1, 2], [0, 2]][number // 3]
        unknown = [2] if number == 0 else []
        rows.append(
            (
                f"p{number}",
                f"images/{number}.png",
                labels,
                unknown,
                96,
                96,
                f"{number:064x}",
                f"g{side}{number // 6}" if number else None,
                None,
                None,
                side,
            )
        )
    columns = [
        "image_id",
        "path",
        "labels",
        "unknown",
        "width",
        "height",
        "sha256",
        "group",
        "slice",
        "given_split",
        "split",
    ]
    return pd.DataFrame(rows, columns=columns)


def check_split(frame: pd.DataFrame, classes: Classes, root: Path, settings: Validate) -> list[Check]:
    return findings_of(frame, classes, root, settings)[0]


USUALLY_LEFT_OUT = {
    "sequences_on_one_side": "the data names no sequences",
    "no_drift": "no file reference/validation.json: `capnet validate --save-reference` writes it",
}


def not_checked(checks: list[Check]) -> dict[str, str]:
    return {check.name: check.why for check in checks if check.status == "not checked"}


def failed(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks if not check.success}


def test_a_good_split_passes_every_check(frame: pd.DataFrame, tmp_path: Path) -> None:
    checks = check_split(frame, CLASSES, tmp_path, SETTINGS)
    assert failed(checks) == {}
    assert len({check.name for check in checks}) == len(checks) == 17
    assert not_checked(checks) == USUALLY_LEFT_OUT
    assert {check.rows for check in checks if check.status == "passed"} == {9}
    assert all(check.offending == [] and check.observed == 0 for check in checks)


def set_cell(column: str, row: int, value: object) -> Callable[[pd.DataFrame], None]:
    def change(frame: pd.DataFrame) -> None:
        frame.at[row, column] = value

    return change


@pytest.mark.parametrize(
    ("change", "name", "offenders"),
    [
        (set_cell("image_id", 4, "p3"), "unique_image_ids", {3, 4}),
        (set_cell("path", 4, "images/3.png"), "unique_paths", {3, 4}),
        (set_cell("labels", 5, [1, 3]), "labels_in_classes", {5}),
        (set_cell("unknown", 5, [3]), "labels_in_classes", {5}),
        (set_cell("unknown", 5, [1]), "labels_known_or_unknown", {5}),
        (set_cell("labels", 5, [1, 1]), "labels_known_or_unknown", {5}),
        (set_cell("path", 8, "/etc/passwd"), "paths_inside_data", {8}),
        (set_cell("path", 8, "images/../../x.png"), "paths_inside_data", {8}),
        (set_cell("width", 2, 15), "width_in_limits", {2}),
        (set_cell("height", 2, 20001), "height_in_limits", {2}),
        (set_cell("sha256", 7, f"{6:064x}"), "pictures_on_one_side", {6, 7}),
        (set_cell("group", 7, "gtrain1"), "groups_on_one_side", {6, 7}),
    ],
)
def test_one_fault_fails_one_check_and_names_its_rows(
    frame: pd.DataFrame, tmp_path: Path, change: Callable[[pd.DataFrame], None], name: str, offenders: set[int]
) -> None:
    change(frame)
    found = failed(check_split(frame, CLASSES, tmp_path, SETTINGS.model_copy(update={"near_duplicates": "off"})))
    assert name in found
    assert {row["image_id"] for row in found[name].offending} == set(frame["image_id"].iloc[sorted(offenders)])
    assert found[name].observed == len(offenders)
    assert found[name].severity == "critical"
    # a size that the table has wrong is also another one than the file's
    assert set(found) - {name} <= {"enough_positives", *(["pictures_unchanged"] if "limits" in name else [])}


def test_a_missing_file_fails(frame: pd.DataFrame, tmp_path: Path) -> None:
    (tmp_path / "images/4.png").unlink()
    found = failed(check_split(frame, CLASSES, tmp_path, SETTINGS))
    assert list(found) == ["pictures_present"]
    assert found["pictures_present"].offending == [
        {"image_id": "p4", "path": "images/4.png", "split": "val", "value": "images/4.png"}
    ]


def test_copies_on_one_side_are_fine(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame.loc[6, "sha256"] = frame.loc[3, "sha256"]
    frame.loc[[6, 3], "group"] = "together"
    assert failed(check_split(frame, CLASSES, tmp_path, SETTINGS)) == {}


@pytest.mark.parametrize("severity", ["off", "warning", "critical"])
def test_a_picture_saved_again_smaller_is_a_near_duplicate(frame: pd.DataFrame, tmp_path: Path, severity: str) -> None:
    with Image.open(tmp_path / "images/0.png") as image:
        image.resize((80, 80), Image.Resampling.BICUBIC).save(tmp_path / "images/8.png")
    frame.loc[8, ["width", "height"]] = 80
    checks = check_split(frame, CLASSES, tmp_path, Validate(min_positives=1, near_duplicates=severity))
    found = failed(checks)
    if severity == "off":
        assert found == {}
        assert not_checked(checks) == {
            **USUALLY_LEFT_OUT,
            "near_duplicates_on_one_side": "validate.near_duplicates is off",
            "bursts_on_one_side": "validate.near_duplicates is off",
        }
    else:
        assert list(found) == ["near_duplicates_on_one_side"]
        check = found["near_duplicates_on_one_side"]
        assert check.severity == severity
        assert {row["image_id"]: row["value"] for row in check.offending} == {
            "p0": "images/8.png",
            "p8": "images/0.png",
        }


def test_pictures_without_structure_are_no_near_duplicates(frame: pd.DataFrame, tmp_path: Path) -> None:
    for number, colour in ((0, "white"), (1, "white"), (2, "black")):
        Image.new("RGB", (96, 96), colour).save(tmp_path / f"images/{number}.png")
    assert failed(check_split(frame, CLASSES, tmp_path, SETTINGS)) == {}


def test_too_few_positives_warn_with_class_and_side(frame: pd.DataFrame, tmp_path: Path) -> None:
    for row in (2, 8):  # the only two test rows with class 0
        frame.at[row, "labels"] = [1]
    found = failed(check_split(frame, CLASSES, tmp_path, SETTINGS))
    assert found["enough_positives"].severity == "warning"
    assert found["enough_positives"].offending == [{"class": "cat", "split": "test", "value": 0}]


def test_blank_pictures_and_a_side_without_rows_are_fine(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame = frame[frame["split"] != "val"].reset_index(drop=True)
    frame["labels"] = [[0, 1, 2], [0, 1, 2], [], [], [], []]
    frame["unknown"] = [[] for _ in range(6)]
    assert failed(check_split(frame, CLASSES, tmp_path, SETTINGS)) == {}


def test_a_sequence_across_sides_fails(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame["sequence"] = [None, "s1", "s2", "s1", "s3", "s4", None, "s5", None]
    found = failed(check_split(frame, CLASSES, tmp_path, SETTINGS))
    assert list(found) == ["sequences_on_one_side"]
    assert found["sequences_on_one_side"].severity == "critical"
    assert [(row["image_id"], row["value"]) for row in found["sequences_on_one_side"].offending] == [
        ("p1", "s1"),
        ("p3", "s1"),
    ]


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
    found = failed(checks)
    assert list(found) == ["paths_inside_data"]
    assert [(row["path"], row["value"]) for row in found["paths_inside_data"].offending] == [
        ("images/4.png", "a link leads out of the data folder")
    ]
    assert failed(findings_of(frame, CLASSES, root, SETTINGS, links="anywhere")[0]) == {}


def test_what_was_not_measured_is_not_checked(frame: pd.DataFrame, tmp_path: Path) -> None:
    """A table whose pictures were never opened has no sizes and no hashes, and that is said."""
    unmeasured = frame.assign(width=np.nan, height=np.nan, sha256=None)
    checks = check_split(unmeasured, CLASSES, tmp_path, SETTINGS.model_copy(update={"images": "off"}))
    assert failed(checks) == {}
    assert not_checked(checks) == {
        **USUALLY_LEFT_OUT,
        **dict.fromkeys(("width_in_limits",), "the table has no width: no picture was opened"),
        **dict.fromkeys(("height_in_limits",), "the table has no height: no picture was opened"),
        "pictures_on_one_side": "the table has no sha256: no picture was opened",
        **dict.fromkeys(
            (
                "pictures_present",
                "pictures_decode",
                "pictures_unchanged",
                "near_duplicates_on_one_side",
                "bursts_on_one_side",
            ),
            "validate.images is off: no file was opened",
        ),
    }
    partly = frame.copy()
    partly.loc[[0, 1], "width"] = np.nan
    partly.loc[2, "width"] = 3
    (size,) = (check for check in check_split(partly, CLASSES, tmp_path, SETTINGS) if check.name == "width_in_limits")
    assert (size.observed, size.rows) == (1, 7)


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
    found = failed(check_split(frame, CLASSES, tmp_path, quick.model_copy(update={"images": "full"})))
    assert list(found) == ["pictures_decode"]
    assert "truncated" in found["pictures_decode"].offending[0]["value"]


def test_pictures_in_a_shard_are_looked_at(frame: pd.DataFrame, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        for number in range(8):
            tar.add(tmp_path / f"images/{number}.png", f"{number}.png")
    frame["path"] = [f"shard.tar/{number}.png" for number in range(9)]
    for pictures in ("header", "full"):
        frame["sha256"] = [sha256_file(tmp_path / f"images/{number}.png") for number in range(9)]
        found = failed(check_split(frame, CLASSES, tmp_path, SETTINGS.model_copy(update={"images": pictures})))
        assert list(found) == ["pictures_present"] or list(found) == ["pictures_decode"]
        assert [row["path"] for check in found.values() for row in check.offending] == ["shard.tar/8.png"]


def test_drift_against_a_reference(frame: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "reference.json"
    settings = SETTINGS.model_copy(update={"reference": str(path)})
    write_json(path, drift_counts(frame, CLASSES))
    checks = check_split(frame, CLASSES, tmp_path, settings)
    assert {check.name: check.status for check in checks}["no_drift"] == "passed"
    found = failed(check_split(frame, make_classes(["cat", "dog", "wolf"]), tmp_path, settings))
    assert [row["value"] for row in found["no_drift"].offending] == ["gone: bird; new: wolf"]
    assert found["no_drift"].severity == "warning"
    off = settings.model_copy(update={"drift": Drift(severity="off")})
    assert not_checked(check_split(frame, CLASSES, tmp_path, off))["no_drift"] == "validate.drift.severity is off"
    nowhere = settings.model_copy(update={"reference": ""})
    assert not_checked(check_split(frame, CLASSES, tmp_path, nowhere))["no_drift"] == "validate.reference names no file"
