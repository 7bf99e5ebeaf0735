"""The validate stage: what it writes, when it stops the run, and that it says the same twice."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from capnet.config import Params, Validate
from capnet.contracts import make_classes, read_split, sha256_file, tree_hash, write_classes, write_split
from capnet.contracts.tables import MANIFEST_COLUMNS
from capnet.data.checks import gate
from capnet.errors import ConfigError, ContractError, DataError, GateError
from capnet.stages import run


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Path]:
    data, split = tmp_path / "data", tmp_path / "split"
    (data / "images").mkdir(parents=True)
    split.mkdir()
    rows = []
    for number in range(12):
        path = data / f"images/{number}.png"
        cells = np.random.default_rng(number).integers(0, 255, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(cells).resize((64, 64), Image.Resampling.BICUBIC).save(path)
        part = ("train", "train", "val", "test")[number % 4]
        rows.append(
            (f"p{number}", f"images/{number}.png", [number % 2], [], 64, 64, sha256_file(path), None, None, None, part)
        )
    columns = [*MANIFEST_COLUMNS, "split"]
    write_split(split / "split.parquet", pd.DataFrame(rows, columns=columns))
    write_classes(split / "classes.json", make_classes(["cat", "dog"]).with_counts([3, 3], (100, 20)))
    return {"split": split, "data": data}


def read(folder: Path) -> dict:
    return json.loads((folder / "validation.json").read_text())


def test_warnings_are_logged_and_the_run_goes_on(
    inputs: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="capnet"):
        metrics = run("validate", Params(), inputs, {"validation": tmp_path / "validation"})
    content = read(tmp_path / "validation")
    assert content["schema"] == 1
    assert content["success"] is True
    assert content["split_md5"] == tree_hash(inputs["split"])
    assert metrics == {"checks": float(len(content["checks"])), "warnings": 1.0}
    (warned,) = [check for check in content["checks"] if not check["success"]]
    assert (warned["name"], warned["severity"], warned["observed"]) == ("enough_positives", "warning", 6)
    assert "enough_positives" in caplog.text
    assert "cat (val)" in caplog.text


def test_checks_hold_for_the_split_that_was_read_and_not_for_one_that_takes_its_place(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked, check = tree_hash(inputs["split"]), gate.check_split

    def meanwhile(frame, *others):
        write_split(inputs["split"] / "split.parquet", frame.iloc[::-1])
        return check(frame, *others)

    monkeypatch.setattr(gate, "check_split", meanwhile)
    run("validate", Params(), inputs, {"validation": tmp_path / "validation"})
    assert tree_hash(inputs["split"]) != checked
    assert read(tmp_path / "validation")["split_md5"] == checked


def test_a_critical_failure_stops_after_writing(inputs: dict[str, Path], tmp_path: Path) -> None:
    (inputs["data"] / "images/7.png").unlink()
    with pytest.raises(GateError) as caught:
        run("validate", Params(), inputs, {"validation": tmp_path / "validation"})
    assert caught.value.exit_code == 5
    assert "pictures_present" in str(caught.value)
    assert "images/7.png (test)" in str(caught.value)
    content = read(tmp_path / "validation")
    assert content["success"] is False
    assert [
        check["name"] for check in content["checks"] if not check["success"] and check["severity"] == "critical"
    ] == ["pictures_present"]


@pytest.mark.parametrize(
    ("left", "message"), [([], "no train and no test"), (["train", "val"], "no test"), (["test"], "no train")]
)
def test_a_split_without_rows_to_train_on_or_to_measure_with_is_refused(
    inputs: dict[str, Path], tmp_path: Path, left: list[str], message: str
) -> None:
    frame = read_split(inputs["split"] / "split.parquet")
    write_split(inputs["split"] / "split.parquet", frame[frame["split"].isin(left)])
    with pytest.raises(DataError, match=f"the split has {message} rows"):
        run("validate", Params(), inputs, {"validation": tmp_path / "validation"})
    assert not (tmp_path / "validation").exists()


def test_without_great_expectations_its_package_is_named(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "great_expectations"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "great_expectations", None)
    with pytest.raises(ConfigError, match=r"great_expectations is not installed[\s\S]*capnet\[data\]"):
        run("validate", Params(), inputs, {"validation": tmp_path / "validation"})
    assert not (tmp_path / "validation").exists()


@pytest.mark.parametrize(
    ("column", "value", "fault"),
    [
        ("split", "holdout", "split is 'holdout', and must be one of train, val, test"),
        ("split", None, "column split has 1 empty cells"),
        ("image_id", None, "column image_id has 1 empty cells"),
        ("path", None, "column path has 1 empty cells"),
        ("labels", None, "column labels has 1 empty cells"),
        ("labels", [-1], "column labels has the class index -1"),
        ("unknown", [-2], "column unknown has the class index -2"),
    ],
)
def test_a_table_that_no_split_writes_is_refused_before_any_check(
    inputs: dict[str, Path], tmp_path: Path, column: str, value: object, fault: str
) -> None:
    frame = read_split(inputs["split"] / "split.parquet")
    frame.at[8, column] = value
    write_split(inputs["split"] / "split.parquet", frame)
    with pytest.raises(ContractError) as caught:
        run("validate", Params(), inputs, {"validation": tmp_path / "validation"})
    assert fault in str(caught.value)
    assert "split.parquet" in str(caught.value)
    assert not (tmp_path / "validation").exists()


def test_leakage_between_sides_names_both_pictures(inputs: dict[str, Path], tmp_path: Path) -> None:
    frame = pd.read_parquet(inputs["split"] / "split.parquet")
    frame.loc[3, "sha256"] = frame.loc[0, "sha256"]
    write_split(inputs["split"] / "split.parquet", frame)
    with pytest.raises(GateError, match=r"images/0.png \(train\): ([0-9a-f]{64}); images/3.png \(test\): \1"):
        run("validate", Params(), inputs, {"validation": tmp_path / "validation"})


@pytest.mark.slow
def test_two_runs_in_two_processes_and_places_give_equal_bytes_and_print_nothing(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    moved, scratch = tmp_path / "elsewhere", tmp_path / "scratch"
    scratch.mkdir()
    inputs["data"].rename(moved)
    for name, data in (("one", moved), ("two", tmp_path / "data")):
        if data != moved:
            moved.rename(data)
        code = (
            "import sys; from capnet.config import Params, Validate; from capnet.stages import run; run('validate',"
            " Params(validate=Validate(min_positives=0)), {'split': sys.argv[1], 'data': sys.argv[2]}, {'validation':"
            " sys.argv[3]})"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(inputs["split"]), str(data), str(tmp_path / name)],
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
            env={**os.environ, "TMPDIR": str(scratch)},
        )
        assert done.stdout == ""
        assert done.stderr == ""
    written = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert [str(path) for path in written] == [
        "data_docs/classes.html",
        "data_docs/pictures.html",
        "validation.html",
        "validation.json",
    ]
    for path in written:
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes()
        assert str(tmp_path) not in (tmp_path / "one" / path).read_text()
    assert {entry.name for entry in tmp_path.iterdir()} == {"one", "two", "data", "split", "scratch"}
    assert list(scratch.iterdir()) == []  # great_expectations leaves nothing behind


def test_near_duplicates_are_as_severe_as_the_setting(inputs: dict[str, Path], tmp_path: Path) -> None:
    with Image.open(inputs["data"] / "images/0.png") as image:
        image.resize((64, 64), Image.Resampling.BICUBIC).save(inputs["data"] / "images/3.png", compress_level=1)
    run("validate", Params(validate=Validate(near_duplicates="warning")), inputs, {"validation": tmp_path / "warned"})
    assert [
        c["observed"] for c in read(tmp_path / "warned")["checks"] if c["name"] == "near_duplicates_in_one_split"
    ] == [2]
    with pytest.raises(GateError, match="look the same"):
        run(
            "validate",
            Params(validate=Validate(near_duplicates="critical")),
            inputs,
            {"validation": tmp_path / "stopped"},
        )
