"""Options that commands share."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from capnet.cli import main

ADDRESS = "s3://bucket/out.csv"
CONTEXT = click.Context(main)


@pytest.mark.parametrize(
    "command",
    [
        ["predict", "--input", "images", "--model", "outputs", "--out", ADDRESS],
        ["export", "--out", ADDRESS],
        ["shard", "--out", ADDRESS],
        ["label", "--input", "images", "--out", ADDRESS],
        ["review", "--out", ADDRESS],
        ["split", "--output", f"split={ADDRESS}"],
    ],
    ids=lambda command: command[0],
)
def test_an_address_is_no_output(command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would become a folder of the name s3: here, in predict after hours of work."""
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 2
    assert f"'{ADDRESS}' is no path on this machine" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["caf\udce9.csv", "caf\udce9/out.csv"])
def test_an_output_whose_name_is_no_utf8_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was a traceback of pyarrow, in predict after the first 256 images."""
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["predict", "--input", "images", "--model", "outputs", "--out", name])
    assert done.exit_code == 2
    assert r"'caf\udce9" in done.stderr
    assert "is no UTF-8: name another file or folder" in done.stderr


@pytest.mark.parametrize("command", [["predict", "--input", "images"], ["export"]], ids=lambda command: command[0])
@pytest.mark.parametrize("setting", ["tte.views=1", "evaluate.threshold.objective=f1"])
def test_a_setting_that_belongs_to_the_model_is_refused_after_training(command: list[str], setting: str) -> None:
    """It was ignored, so predictions looked as if they had one view."""
    done = CliRunner().invoke(main, [*command, "--set", setting])
    assert done.exit_code == 2
    assert f"'{setting}' has no effect here, where only register, runtime, data are used" in done.stderr


def test_settings_of_the_machine_and_the_store_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("split:\n  seed: 0\n")
    settings = ["--set", "runtime.workers=0", "--set", "register.name=birds", "--set", "data.root=images"]
    done = CliRunner().invoke(main, ["predict", "--input", "images", "--model", "outputs", *settings])
    assert "no effect" not in done.stderr
    assert "images" in str(done.exception), "the folder of images, which is looked for next"


@pytest.mark.parametrize("name", main.list_commands(CONTEXT))
def test_a_number_of_a_command_has_a_range(name: str) -> None:
    """So that `--nodes 0` or -1 GPUs are refused at the start."""
    found = main.get_command(CONTEXT, name)
    assert found is not None
    numbers = (click.types.IntParamType, click.types.FloatParamType)
    without = [item.name for item in found.params if type(item.type) in numbers]
    assert without == []


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["label", "--input", "data/july", "--class", "person", "--class", "car"], "--class is given twice"),
        (["label", "--input=data/july", "--input", "data/july"], "--input is given twice"),
        (["predict", "--input", "a", *["--model", "outputs"] * 3], "--model is given 3 times"),
        (["train", "--params", "a.yaml", "--params=b.yaml"], "--params is given twice"),
        (["demo-data", "--out", "a", "--out", "b"], "--out is given twice"),
    ],
)
def test_an_option_with_one_value_is_given_once(
    words: list[str], named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last one won without a word."""
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 2, done.stderr
    assert f"Error: {named}: give one\n" in done.stderr
    assert done.stderr.startswith(f"Usage: main {words[0]} ")
    assert list(tmp_path.iterdir()) == []


def test_options_with_several_values_and_flags_are_given_as_often_as_wanted() -> None:
    for words in (["--set", "train.epochs=3", "--set", "train.epochs=4"], ["--check", "--check"]):
        done = CliRunner().invoke(main, ["register", *words, "--input", "a=b", "--input", "a=c", "--help"])
        assert (done.exit_code, done.stderr) == (0, "")


def test_other_mistakes_of_options_are_answered_by_click() -> None:
    for words, what in ((["--mots", "3"], "No such option '--mots'"), (["--most", "x"], "'x' is not a valid integer")):
        done = CliRunner().invoke(main, ["label", "--input", "data/july", *words])
        assert done.exit_code == 2
        assert what in done.stderr
