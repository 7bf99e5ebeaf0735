"""The data gate on tables: each fault alone is found, with its rows, by great_expectations itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from unit.data.checks import good_split
from unit.data.checks.good_split import CLASSES, SETTINGS, USUALLY_LEFT_OUT, check_split, failed, not_checked

from capnet.config import Drift
from capnet.contracts import make_classes, write_json
from capnet.data.checks.drift import drift_counts

frame = good_split.frame


@pytest.mark.slow
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


@pytest.mark.slow
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
        (set_cell("sha256", 7, f"{6:064x}"), "pictures_in_one_split", {6, 7}),
        (set_cell("group", 7, "gtrain1"), "groups_in_one_split", {6, 7}),
    ],
)
def test_one_fault_fails_one_check_and_names_its_rows(
    frame: pd.DataFrame, tmp_path: Path, change: Callable[[pd.DataFrame], None], name: str, offenders: set[int]
) -> None:
    change(frame)
    result = failed(check_split(frame, CLASSES, tmp_path, SETTINGS.model_copy(update={"near_duplicates": "off"})))
    assert name in result
    assert {row["image_id"] for row in result[name].offending} == set(frame["image_id"].iloc[sorted(offenders)])
    assert result[name].observed == len(offenders)
    assert result[name].severity == "critical"
    # a size that the table has wrong is also another one than the file's
    assert set(result) - {name} <= {"enough_positives", *(["pictures_unchanged"] if "limits" in name else [])}


def test_copies_in_one_split_are_fine(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame.loc[6, "sha256"] = frame.loc[3, "sha256"]
    frame.loc[[6, 3], "group"] = "together"
    assert failed(check_split(frame, CLASSES, tmp_path, SETTINGS)) == {}


def test_too_few_positives_warn_with_class_and_side(frame: pd.DataFrame, tmp_path: Path) -> None:
    for row in (2, 8):  # the only two test rows with class 0
        frame.at[row, "labels"] = [1]
    result = failed(check_split(frame, CLASSES, tmp_path, SETTINGS))
    assert result["enough_positives"].severity == "warning"
    assert result["enough_positives"].offending == [{"class": "cat", "split": "test", "value": 0}]


def test_blank_pictures_and_a_side_without_rows_are_fine(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame = frame[frame["split"] != "val"].reset_index(drop=True)
    frame["labels"] = [[0, 1, 2], [0, 1, 2], [], [], [], []]
    frame["unknown"] = [[] for _ in range(6)]
    assert failed(check_split(frame, CLASSES, tmp_path, SETTINGS)) == {}


def test_a_sequence_across_sides_fails(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame["sequence"] = [None, "s1", "s2", "s1", "s3", "s4", None, "s5", None]
    result = failed(check_split(frame, CLASSES, tmp_path, SETTINGS))
    assert list(result) == ["sequences_in_one_split"]
    assert result["sequences_in_one_split"].severity == "critical"
    assert [(row["image_id"], row["value"]) for row in result["sequences_in_one_split"].offending] == [
        ("p1", "s1"),
        ("p3", "s1"),
    ]
    assert "begin their names with the camera's" in result["sequences_in_one_split"].todo


def test_what_was_not_measured_is_not_checked(frame: pd.DataFrame, tmp_path: Path) -> None:
    """A table whose pictures were never opened has no sizes and no hashes, and that is said."""
    unmeasured = frame.assign(width=np.nan, height=np.nan, sha256=None)
    checks = check_split(unmeasured, CLASSES, tmp_path, SETTINGS.model_copy(update={"images": "off"}))
    assert failed(checks) == {}
    assert not_checked(checks) == {
        **USUALLY_LEFT_OUT,
        **dict.fromkeys(("width_in_limits",), "the table has no width: no picture was opened"),
        **dict.fromkeys(("height_in_limits",), "the table has no height: no picture was opened"),
        "pictures_in_one_split": "the table has no sha256: no picture was opened",
        **dict.fromkeys(
            (
                "pictures_present",
                "pictures_decode",
                "pictures_unchanged",
                "near_duplicates_in_one_split",
                "bursts_in_one_split",
            ),
            "validate.images is off: no file was opened",
        ),
    }
    partly = frame.copy()
    partly.loc[[0, 1], "width"] = np.nan
    partly.loc[2, "width"] = 3
    (size,) = (check for check in check_split(partly, CLASSES, tmp_path, SETTINGS) if check.name == "width_in_limits")
    assert (size.observed, size.rows) == (1, 7)


@pytest.mark.slow
def test_drift_against_a_reference(frame: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "reference.json"
    settings = SETTINGS.model_copy(update={"reference": str(path)})
    write_json(path, drift_counts(frame, CLASSES))
    checks = check_split(frame, CLASSES, tmp_path, settings)
    assert {check.name: check.status for check in checks}["no_drift"] == "passed"
    result = failed(check_split(frame, make_classes(["cat", "dog", "wolf"]), tmp_path, settings))
    assert [row["value"] for row in result["no_drift"].offending] == ["gone: bird; new: wolf"]
    assert result["no_drift"].severity == "warning"
    off = settings.model_copy(update={"drift": Drift(severity="off")})
    assert not_checked(check_split(frame, CLASSES, tmp_path, off))["no_drift"] == "validate.drift.severity is off"
    nowhere = settings.model_copy(update={"reference": ""})
    assert not_checked(check_split(frame, CLASSES, tmp_path, nowhere))["no_drift"] == "validate.reference names no file"


def test_groups_are_not_called_checked_where_the_data_names_none(frame: pd.DataFrame, tmp_path: Path) -> None:
    checks = check_split(frame.assign(group=None), CLASSES, tmp_path, SETTINGS)
    assert not_checked(checks) == USUALLY_LEFT_OUT | {"groups_in_one_split": "the data names no groups"}
    assert not failed(checks)
