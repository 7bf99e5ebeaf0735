"""`--save-reference`: of validate, written from a split that passes and compared with later; of split, kept when images
are added.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from capnet.cli import main
from capnet.commands.label import next_steps
from capnet.commands.preset import render
from capnet.commands.save_reference import unrecorded, validate_and_save
from capnet.config import Params, load, parse
from capnet.contracts import make_classes, read_split, write_classes, write_manifest, write_split
from capnet.contracts.tables import MANIFEST_COLUMNS
from capnet.data.splits.reference import read_split_reference
from capnet.errors import ConfigError, GateError
from capnet.tasks import with_files

pytestmark = pytest.mark.slow

POLICY = Path(__file__).resolve().parents[3] / "mlflow" / "promotion.yaml"
COLUMNS = [*MANIFEST_COLUMNS, "split"]


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
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


def test_later_runs_are_compared_with_it(workspace: Path) -> None:
    validate()
    assert "no file reference/validation.json" in drift(workspace)["why"]
    assert "wrote reference/validation.json; commit it" in validate("--save-reference")
    written = (workspace / "reference/validation.json").read_bytes()
    assert (drift(workspace)["why"], drift(workspace)["success"]) == ("", True)
    validate()
    split(workspace, labels=[[0, 1], [0, 1]])
    with pytest.raises(GateError, match=r"label cardinality \(test\): 1\.667 labels a picture, now 2\.000"):
        validate()
    assert (workspace / "reference/validation.json").read_bytes() == written
    validate("--save-reference")  # the change is meant
    validate()
    assert (workspace / "reference/validation.json").read_bytes() != written


def test_a_refused_split_leaves_no_reference(workspace: Path) -> None:
    split(workspace, labels=[[0], [1]], width=3)
    with pytest.raises(GateError, match="width_in_limits"):
        validate("--save-reference")
    assert not (workspace / "reference/validation.json").exists()
    split(workspace, labels=[[0], [0, 1]])
    validate("--save-reference")
    before = (workspace / "reference/validation.json").read_bytes()
    split(workspace, labels=[[0], [1]], width=3)
    with pytest.raises(GateError):
        validate("--save-reference")
    assert (workspace / "reference/validation.json").read_bytes() == before


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), RuntimeError("of a library")])
def test_a_stage_that_was_stopped_leaves_no_reference(workspace: Path, stop: BaseException) -> None:
    def stopped(params: Params) -> dict[str, float]:
        raise stop

    with pytest.raises(type(stop)):
        validate_and_save(load(workspace / "params.yaml", []), {"split": workspace / "outputs/split"}, stopped)
    assert not (workspace / "reference").exists()


def test_a_setting_without_a_name_is_refused(workspace: Path) -> None:
    with pytest.raises(ConfigError, match=r"validate\.reference names no file"):
        validate("--save-reference", "--set", 'validate.reference=""')


def test_only_json_is_overwritten_and_a_folder_is_no_reference(workspace: Path) -> None:
    (workspace / "labels.csv").write_text("mine")
    with pytest.raises(ConfigError, match="another ending"):
        validate("--save-reference", "--set", "validate.reference=labels.csv")
    assert (workspace / "labels.csv").read_text() == "mine"
    (workspace / "folder").mkdir()
    with pytest.raises(ConfigError, match="is a folder"):
        validate("--set", "validate.reference=folder")


def add_images(root: Path, count: int, groups: Sequence[str | None] | None = None) -> None:
    """A manifest of so many images, of which one in four is a cat."""
    ids = [f"p{number:03d}" for number in range(count)]
    frame = pd.DataFrame(
        {
            "image_id": ids,
            "path": ids,
            "labels": [[0] if number % 4 == 0 else [1] for number in range(count)],
            "unknown": [[] for _ in ids],
            "width": 64,
            "height": 64,
            "sha256": [f"{number:064x}" for number in range(count)],
            "group": pd.Series(groups or [None] * count, dtype=object),
            **{name: pd.Series([None] * count, dtype=object) for name in ("slice", "given_split")},
        }
    )
    write_manifest(root / "outputs/manifest/manifest.parquet", frame)
    write_classes(root / "outputs/manifest/classes.json", make_classes(["cat", "dog"]))


def run_split(*options: str) -> set[str]:
    """Ids of the test images."""
    result = CliRunner().invoke(main, ["split", *options], catch_exceptions=False)
    assert result.exit_code == 0
    assert ("wrote reference/split.csv; commit it" in result.output) == ("--save-reference" in options)
    frame = read_split(Path("outputs/split/split.parquet"))
    return set(frame["image_id"][frame["split"] == "test"])


def test_a_saved_split_is_kept_and_grows(workspace: Path) -> None:
    add_images(workspace, 100)
    first = run_split()
    assert run_split("--save-reference") == first
    assert (workspace / "reference/split.csv").read_text().startswith("image_id,split,group\np000,")
    add_images(workspace, 140)
    second = run_split()
    assert first < second
    assert len(second) == 20 + 8
    assert run_split("--save-reference") == second
    add_images(workspace, 141)
    assert run_split() == second
    assert run_split("--set", 'split.reference=""') != second


def test_test_images_that_are_not_recorded_are_counted(workspace: Path) -> None:
    folder = Path("outputs/split")
    assert unrecorded(parse({}).split, folder) == "", "nobody has divided the images"
    add_images(workspace, 100)
    run_split()
    assert unrecorded(parse({}).split, folder) == "20 of 20 test images"
    run_split("--save-reference")
    assert unrecorded(parse({}).split, folder) == ""
    add_images(workspace, 140)
    assert len(run_split()) == 28
    assert unrecorded(parse({}).split, folder) == "8 of 28 test images"
    assert unrecorded(parse({"split": {"reference": ""}}).split, folder) == "", "nobody wants them recorded"
    first, *_ = steps = next_steps(parse({}), "july")
    assert first.startswith("First: capnet split --save-reference; 8 of 28 test images are not recorded")
    run_split("--save-reference")
    assert unrecorded(parse({}).split, folder) == ""
    assert next_steps(parse({}), "july") == steps[1:]
    (folder / "split.parquet").write_bytes(b"damaged")
    assert next_steps(parse({}), "july") == steps[1:], "labelling needs no split"


def test_the_command_for_the_saved_table_may_be_pasted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of the data may have a blank in its name: the table lies in no other folder then."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    saved = tmp_path / "home/Downloads/july-1.csv"
    saved.parent.mkdir(parents=True)
    saved.write_text("path,labels\n")
    *_, step = next_steps(parse({"data": {"root": "my data"}, "split": {"reference": ""}}), "july")
    command = step.removeprefix("Then: ").removesuffix("; dvc repro")
    subprocess.run(["sh", "-c", command], check=True)
    assert [*Path().rglob("*.csv")] == [Path("my data/added/july-1.csv")]


def test_images_that_a_draw_left_over_do_not_fill_up_test(workspace: Path) -> None:
    """Groups of 19 and of 5 in turn: test has fewer than 20 images, and groups that the draw does without would fit."""
    add_images(workspace, 96, groups=[f"g{number // 24}, {number % 24 < 19}" for number in range(96)])
    options = ("--set", "split.method=pareto", "--set", "split.pareto.max=10", "--set", "split.pareto.min=1")
    first = run_split(*options)
    assert len(first) < 19
    for _ in range(2):
        assert run_split("--save-reference", *options) == first


def test_a_table_of_ones_own_is_not_written_over(workspace: Path) -> None:
    add_images(workspace, 40)
    (workspace / "labels.csv").write_text("path,labels\na.jpg,fox\n")
    with pytest.raises(ConfigError, match="first line"):
        CliRunner().invoke(
            main,
            ["split", "--save-reference", "--set", "split.reference=labels.csv"],
            catch_exceptions=False,
            standalone_mode=False,
        )
    assert (workspace / "labels.csv").read_text() == "path,labels\na.jpg,fox\n"


def test_a_pipeline_takes_the_file_along(workspace: Path) -> None:
    add_images(workspace, 40)
    test = run_split("--save-reference")
    setting = with_files(parse({"register": {"policy": str(POLICY)}})).split.reference
    assert {name for name, split in read_split_reference(setting).images.items() if split == "test"} == test
