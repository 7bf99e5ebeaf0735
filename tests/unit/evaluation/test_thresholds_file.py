"""The message about a thresholds.json that no stage wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from capnet.contracts import SCHEMA, write_json
from capnet.errors import ContractError
from capnet.evaluation.thresholds_file import read_thresholds

CONTENT = {
    "schema": SCHEMA,
    "class_fingerprint": "sha256",
    "classes": [{"name": "cat", "threshold": 0.5}, {"name": "dog", "threshold": 0.25}],
    "calibration": {"temperature": [1.0, 2.0], "shift": [0.0, 0.0]},
}
WRONG = [
    ("2 classes need as many temperatures and shifts", {"calibration": {"temperature": [1.0], "shift": [0.0, 0.0]}}),
    ("2 classes need as many temperatures and shifts", {"calibration": {"temperature": [1.0] * 3, "shift": [0.0] * 3}}),
    ("0 classes need as many temperatures and shifts", {"classes": []}),
    (
        "calibration.shift.1: Input should be a finite number",
        {"calibration": {"temperature": [1.0, 1.0], "shift": [0.0, 10.0**308]}},
    ),
    ("class_fingerprint: String should have at least 1 character", {"class_fingerprint": ""}),
]


@pytest.mark.parametrize(("what", "wrong"), WRONG)
def test_the_part_of_a_damaged_file_that_is_wrong_is_named(what: str, wrong: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "thresholds.json"
    write_json(path, CONTENT)
    assert read_thresholds(path)["classes"] == CONTENT["classes"]
    write_json(path, CONTENT | wrong)
    path.write_text(path.read_text().replace("1e+308", "1e+999"))  # JSON has it, and Python makes infinity of it
    with pytest.raises(ContractError) as error:
        read_thresholds(path)
    assert error.value.problems[0].what == f"damaged, or not what this version writes: {what}"
