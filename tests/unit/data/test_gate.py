"""The data gate: each fault alone is found, with its rows, by great_expectations itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from capnet.config import Validate
from capnet.contracts import Classes, make_classes
from capnet.data.check_rules import Check
from capnet.data.gate import check_split as findings_of

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
            (f"p{number}", f"images/{number}.png", labels, unknown, 96, 96, f"{number:064x}", f"g{side}{number // 6}" if number else None, None, None, side)
        )
    columns = ["image_id", "path", "labels", "unknown", "width", "height", "sha256", "group", "slice", "given_split", "split"]
    return pd.DataFrame(rows, columns=columns)


def check_split(frame: pd.DataFrame, classes: Classes, root: Path, settings: Validate) -> list[Check]:
    return findings_of(frame, classes, root, settings).checks


def failed(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks if not check.success}


def test_a_good_split_passes_every_check(frame: pd.DataFrame, tmp_path: Path) -> None:
    checks = check_split(frame, CLASSES, tmp_path, SETTINGS)
    assert failed(checks) == {}
    assert len({check.name for check in checks}) == len(checks) == 18
    assert {check.rows for check in checks} == {9}
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
        (set_cell("split", 8, "holdout"), "known_sides", {8}),
        (set_cell("labels", 5, [-1]), "labels_not_negative", {5}),
        (set_cell("labels", 5, [1, 3]), "labels_in_classes", {5}),
        (set_cell("unknown", 5, [3]), "labels_in_classes", {5}),
        (set_cell("unknown", 5, [1]), "labels_known_or_unknown", {5}),
        (set_cell("unknown", 5, [-2]), "labels_not_negative", {5}),
        (set_cell("labels", 5, [1, 1]), "labels_known_or_unknown", {5}),
        (set_cell("split", 8, None), "cells_filled", {8}),
        (set_cell("sha256", 8, None), "cells_filled", {8}),
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
    follow = {"known_sides", "pictures_present", "pictures_decode"} if name in ("cells_filled", "paths_inside_data") else set()
    assert set(found) - {name} - follow <= {"enough_positives", *(["pictures_unchanged"] if "limits" in name else [])}


def test_a_missing_file_fails(frame: pd.DataFrame, tmp_path: Path) -> None:
    (tmp_path / "images/4.png").unlink()
    found = failed(check_split(frame, CLASSES, tmp_path, SETTINGS))
    assert list(found) == ["pictures_present"]
    assert found["pictures_present"].offending == [{"image_id": "p4", "path": "images/4.png", "split": "val", "value": "images/4.png"}]


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
        assert {check.name: check.why for check in checks if check.status == "not checked"} == {
            "near_duplicates_on_one_side": "validate.near_duplicates is off",
            "bursts_on_one_side": "validate.near_duplicates is off",
        }
    else:
        assert list(found) == ["near_duplicates_on_one_side"]
        check = found["near_duplicates_on_one_side"]
        assert check.severity == severity
        assert {row["image_id"]: row["value"] for row in check.offending} == {"p0": "images/8.png", "p8": "images/0.png"}


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
