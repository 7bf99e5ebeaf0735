"""What `stages.run` says where a stage cannot start."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from capnet.cli import main
from capnet.errors import CapnetError, ConfigError, ContractError
from capnet.stages import process_rank, run


def test_a_setting_that_the_stage_does_not_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("{}\n")
    for setting, words in (("train.epochs=3", "split: reads no settings of train"), ("split.seed=3", "")):
        with pytest.raises(ContractError):
            main(["split", "--set", setting], standalone_mode=False)
        assert capsys.readouterr().err.partition(": --set")[0] == words


def test_a_file_in_the_place_of_the_output_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "outputs").write_text("mine")
    with pytest.raises(CapnetError) as caught:
        run("ingest", {}, {"data": tmp_path}, {"manifest": tmp_path / "outputs" / "manifest"})
    problem = caught.value.problems[0]
    assert problem.where == str(tmp_path / "outputs")
    assert problem.what
    assert problem.todo
    assert (tmp_path / "outputs").read_text() == "mine"


@pytest.mark.parametrize(
    "output", ["data", "data/images", "..", ".", "mine", "list.txt", "list.txt/x", "outputs/split"]
)
def test_an_output_replaces_nothing_that_no_earlier_run_has_written(
    output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = tmp_path / "workspace"
    for name in ("data/images/a.jpg", "data/labels.csv", "mine/thesis.txt", "outputs/split/split.parquet", "list.txt"):
        (workspace / name).parent.mkdir(parents=True, exist_ok=True)
        (workspace / name).write_text("mine")
    monkeypatch.chdir(workspace)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(CapnetError) as caught:
        run("ingest", {}, {"data": "data"}, {"manifest": output})
    assert all(problem.what and problem.where and problem.todo for problem in caught.value.problems)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_file_is_replaced_only_by_one_of_its_kind(kind: str, tmp_path: Path) -> None:
    inputs = {key: tmp_path / key for key in ("split", "validation", "model", "evaluation")}
    for path in inputs.values():
        path.mkdir()
    mine = tmp_path / "params.yaml"
    if kind == "folder":
        mine.mkdir()
    else:
        mine.write_text("mine")
    with pytest.raises(ConfigError, match=r"what is there is none|the place of another file"):
        run("register", {}, inputs, {"registration": mine})
    assert mine.is_dir() if kind == "folder" else mine.read_text() == "mine"


def test_an_output_takes_no_input_away(tmp_path: Path) -> None:
    folder = tmp_path / "outputs" / "manifest"
    folder.mkdir(parents=True)
    (folder / "manifest.parquet").write_text("mine")
    for output in (folder, folder / "split", tmp_path / "outputs"):
        with pytest.raises(ConfigError, match="the place of input manifest"):
            run("split", {}, {"manifest": folder}, {"split": output})
    assert (folder / "manifest.parquet").read_text() == "mine"


def test_names_that_a_stage_does_not_have_are_a_mistake_in_the_command(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no output 'foo'\n.*\n.*name just these: manifest"):
        run("ingest", {}, {"data": tmp_path}, {"foo": tmp_path})


def test_a_model_is_there_before_the_tracking_server_hears_of_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training has removed its checkpoints by then: Ctrl-C while the server is slow lost all of it."""

    @contextmanager
    def interrupted(*arguments: object) -> Iterator[object]:
        yield None
        raise KeyboardInterrupt

    def train(params: object, inputs: object, outputs: dict[str, Path], log: object) -> dict[str, float]:
        outputs["model"].mkdir()
        (outputs["model"] / "model.safetensors").write_text("trained")
        return {}

    monkeypatch.setattr("capnet.tracking.live.tracked", interrupted)
    monkeypatch.setattr("capnet.steps.train.train", train)
    inputs = {key: tmp_path / key for key in ("split", "validation", "graph", "data")}
    for path in inputs.values():
        path.mkdir()
    with pytest.raises(KeyboardInterrupt):
        run("train", {}, inputs, {"model": tmp_path / "model"})
    assert (tmp_path / "model" / "model.safetensors").read_text() == "trained"


@pytest.mark.parametrize("rank", ["", "abc", "-1"])
def test_a_rank_that_is_no_number_is_a_message(rank: str) -> None:
    command = [sys.executable, "-m", "capnet.cli", "preset", "own"]
    done = subprocess.run(command, env=os.environ | {"RANK": rank}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[1:] == [
        f"{rank!r} is no number of a process",
        "  where: the variable RANK",
        "  to do: unset it: torchrun sets it",
    ]


@pytest.mark.parametrize(
    ("variables", "what"),
    [
        ({"WORLD_SIZE": "abc", "RANK": "0"}, "'abc' is no number of a process\n  where: the variable WORLD_SIZE"),
        ({"LOCAL_WORLD_SIZE": "0"}, "'0' is no number of a process\n  where: the variable LOCAL_WORLD_SIZE"),
        ({"LOCAL_RANK": "x"}, "'x' is no number of a process\n  where: the variable LOCAL_RANK"),
        ({"RANK": "1"}, "process 1 of 1: the first is 0"),  # would compute, publish nothing and end with status 0
        ({"RANK": "2", "WORLD_SIZE": "2"}, "process 2 of 2: the first is 0"),
    ],
)
def test_variables_of_torchrun_that_do_not_fit_are_named(
    variables: dict[str, str], what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=what):
        process_rank()
