"""`capnet validate --save-reference`: written from a split that passes, compared with later, and never from one that is
refused.
"""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from capnet.cli import main
from capnet.commands.preset import render
from capnet.commands.save_reference import validate_and_save
from capnet.config import Params, load, parse
from capnet.contracts import make_classes, write_classes, write_split
from capnet.errors import ConfigError, GateError

pytestmark = pytest.mark.slow

COLUMNS = [
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


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    split(tmp_path, labels=[[0], [0, 1]])
    settings = {"validate": {"images": "off", "min_positives": 0, "drift": {"severity": "critical"}}}
    (tmp_path / "params.yaml").write_text(render(parse(settings), "a test"))
    return tmp_path


def split(root: Path, labels: list[list[int]], width: int = 64) -> None:
    rows = [
        (
            f"p{n}",
            f"{n}.jpg",
            labels[n % len(labels)],
            [],
            width,
            64,
            f"{n:064x}",
            None,
            None,
            None,
            "test" if n % 4 else "train",
        )
        for n in range(400)
    ]
    write_split(root / "outputs/split/split.parquet", pd.DataFrame(rows, columns=COLUMNS))
    write_classes(root / "outputs/split/classes.json", make_classes(["cat", "dog"]).with_counts([100, 50], (100, 20)))


def validate(*options: str) -> str:
    result = CliRunner().invoke(main, ["validate", *options], catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def drift(root: Path) -> dict:
    (check,) = (
        item
        for item in json.loads((root / "outputs/validation/validation.json").read_text())["checks"]
        if item["name"] == "no_drift"
    )
    return check


def test_later_runs_are_compared_with_it(place: Path) -> None:
    validate()
    assert "no file reference/validation.json" in drift(place)["why"]
    assert "wrote reference/validation.json; commit it" in validate("--save-reference")
    written = (place / "reference/validation.json").read_bytes()
    assert (drift(place)["why"], drift(place)["success"]) == ("", True)
    validate()
    split(place, labels=[[0, 1], [0, 1]])
    with pytest.raises(GateError, match=r"label cardinality \(test\): 1\.667 labels a picture, now 2\.000"):
        validate()
    assert (place / "reference/validation.json").read_bytes() == written
    validate("--save-reference")  # the change is meant
    validate()
    assert (place / "reference/validation.json").read_bytes() != written


def test_a_refused_split_leaves_no_reference(place: Path) -> None:
    split(place, labels=[[0], [1]], width=3)
    with pytest.raises(GateError, match="width_in_limits"):
        validate("--save-reference")
    assert not (place / "reference/validation.json").exists()
    split(place, labels=[[0], [0, 1]])
    validate("--save-reference")
    before = (place / "reference/validation.json").read_bytes()
    split(place, labels=[[0], [1]], width=3)
    with pytest.raises(GateError):
        validate("--save-reference")
    assert (place / "reference/validation.json").read_bytes() == before


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), RuntimeError("of a library")])
def test_a_stage_that_was_stopped_leaves_no_reference(place: Path, stop: BaseException) -> None:
    def stopped(params: Params) -> dict[str, float]:
        raise stop

    with pytest.raises(type(stop)):
        validate_and_save(load(place / "params.yaml", []), place / "outputs/split", stopped)
    assert not (place / "reference").exists()


def test_a_setting_without_a_name_is_refused(place: Path) -> None:
    with pytest.raises(ConfigError, match=r"validate\.reference names no file"):
        validate("--save-reference", "--set", 'validate.reference=""')


def test_only_json_is_overwritten_and_a_folder_is_no_reference(place: Path) -> None:
    (place / "labels.csv").write_text("mine")
    with pytest.raises(ConfigError, match="another ending"):
        validate("--save-reference", "--set", "validate.reference=labels.csv")
    assert (place / "labels.csv").read_text() == "mine"
    (place / "folder").mkdir()
    with pytest.raises(ConfigError, match="is a folder"):
        validate("--set", "validate.reference=folder")
