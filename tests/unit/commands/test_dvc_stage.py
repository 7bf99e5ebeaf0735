"""What DVC would record wrongly: it hashes what a stage depends on when the stage ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from capnet.cli import main
from capnet.errors import ConfigError, ContractError


@pytest.mark.parametrize(("edited", "code"), [("train", 2), ("evaluate", 0)])
def test_settings_edited_while_a_stage_runs_are_not_recorded_with_its_outputs(
    edited: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DVC records the settings as they are when the stage ends: it called a model of the earlier ones up to date."""

    def train(*arguments: object) -> dict[str, float]:
        (tmp_path / "params.yaml").write_text(f"{edited}: {{}}\nruntime: {{seed: 1}}\n")
        return {"loss": 0.5}

    (tmp_path / "params.yaml").write_text("runtime: {seed: 1}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("capnet.commands.stage.run", train)
    monkeypatch.setenv("DVC_STAGE", "train")
    done = CliRunner().invoke(main, ["train"])
    error = done.exception if isinstance(done.exception, ConfigError) else None
    assert (error.exit_code if error else done.exit_code) == code
    assert done.stdout == "train: loss 0.5\n"
    if error:
        assert "train changed while stage train ran: its outputs are of the settings before" in str(error)


@pytest.mark.parametrize("file", ["capnet/loss.py", "outputs/split/split.parquet", "reference/split.csv"])
@pytest.mark.parametrize("content", ["before", "after", None])
@pytest.mark.parametrize("stage", ["train", "mine/dvc.yaml:train", "train@3"])
def test_files_changed_while_a_stage_runs_are_not_recorded_with_its_outputs(
    file: str, content: str | None, stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DVC hashes dependencies when a stage ends: after a `git pull` a model of the code before was up to date."""
    deps = ["capnet/loss.py", "mine", "outputs/split", "reference", "not_there", "pictures", "${data.root}"]
    entry = {"cmd": "capnet train", "deps": deps}
    entry = {"foreach": [3], "do": entry} if "@" in stage else entry
    (tmp_path / "dvc.yaml").write_text(json.dumps({"stages": {"train": entry}}))
    (tmp_path / "params.yaml").write_text("{data: {root: pictures}}")
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text("before")
    (tmp_path / "mine/__pycache__").mkdir(parents=True)
    (tmp_path / "pictures").mkdir()

    def train(*arguments: object) -> dict[str, float]:
        (tmp_path / "mine/__pycache__/loss.pyc").touch()  # Python compiles what a stage imports
        (tmp_path / "pictures/new.jpg").touch()
        (tmp_path / file).unlink()
        if content is not None:
            (tmp_path / file).write_text(content)
        return {"loss": 0.5}

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("capnet.commands.stage.run", train)
    monkeypatch.setenv("DVC_STAGE", stage)
    done = CliRunner().invoke(main, ["train"])
    assert done.stdout == "train: loss 0.5\n"
    if content == "before":
        assert done.exit_code == 0
        return
    assert isinstance(done.exception, ContractError)
    assert "changed while stage train ran, so its outputs may be of what was there before" in str(done.exception)
    assert next(item for item in deps if file.startswith(item)) in str(done.exception)
    assert f"`dvc commit -f {stage}`" in str(done.exception)


def test_a_stage_that_dvc_runs_may_save_its_own_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def save(*arguments: object) -> dict[str, float]:
        (tmp_path / "reference").write_text("after")
        return {}

    (tmp_path / "dvc.yaml").write_text("stages: {split: {deps: [reference]}}")
    (tmp_path / "params.yaml").write_text("{}")
    (tmp_path / "reference").write_text("before")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("capnet.commands.save_reference.split_and_save", save)
    monkeypatch.setenv("DVC_STAGE", "split")
    assert CliRunner().invoke(main, ["split", "--save-reference"]).exit_code == 0


@pytest.mark.parametrize("content", ["data: [1]\n", "data: text\n", "", "- 1\n"])
def test_settings_of_another_form_are_refused_as_without_dvc(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "params.yaml").write_text(content)
    monkeypatch.chdir(tmp_path)
    refusals = []
    for stage in ("", "train"):
        monkeypatch.setenv("DVC_STAGE", stage)
        refusals.append(CliRunner().invoke(main, ["train"]).exception)
    assert str(refusals[0]) == str(refusals[1])
    assert isinstance(refusals[1], ConfigError | ContractError)
