"""`pipelines.submit --local docker` before the first container: what it refuses, and how containers see this
machine.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from capnet.errors import ConfigError, DataError
from pipelines import compiling, submit

pytestmark = pytest.mark.slow

SERVER = "http://127.0.0.1:5000"


@pytest.fixture(autouse=True)
def here(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the repository, and without a server of the user's."""
    monkeypatch.chdir(repository)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def seen(root: str, monkeypatch: pytest.MonkeyPatch, *more: str) -> tuple[str, str, bool]:
    """Where containers of a prediction find the images, the folder to mount, and whether their tasks mount it."""
    runs: list[tuple[Any, ...]] = []
    monkeypatch.setitem(compiling.PIPELINES, "prediction", lambda options: options)
    monkeypatch.setattr(submit, "_run_here", lambda *run: runs.append(run))
    words = ["--local", "docker", "--lock", str(compiling.GOLDEN_LOCK), "--params", "params.yaml", *more]
    settings = ["--set", f"register.tracking_uri={SERVER}", "--set", f"data.root={root}"]
    result = CliRunner().invoke(submit.command, ["prediction", *words, *settings])
    if result.exception:
        raise result.exception
    [(options, arguments, folder, _)] = runs
    return arguments["predict"]["data"]["root"], folder, options.data_volume


def test_a_local_folder_is_mounted_as_the_volume_with_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert seen(str(tmp_path), monkeypatch) == ("/mnt/data", str(tmp_path), True)


def test_a_bucket_needs_no_mount(monkeypatch: pytest.MonkeyPatch) -> None:
    assert seen("s3://birds/set", monkeypatch) == ("s3://birds/set", "", False)


def test_pictures_to_predict_take_the_place_of_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert seen("s3://birds/set", monkeypatch, "--pictures", str(tmp_path)) == ("/mnt/data", str(tmp_path), True)
    assert seen("birds", monkeypatch, "--pictures", "s3://birds/new") == ("s3://birds/new", "", False)


def test_a_missing_folder_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="there is no such folder"):
        seen("nowhere", monkeypatch)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ((), "containers need an MLflow server, and the store is the file sqlite:///mlflow.db"),
        (("--set", f"register.tracking_uri={SERVER}", "--set", "data.root=s3://birds/set"), "Docker does not answer"),
    ],
)
def test_what_containers_cannot_reach_ends_the_command(
    settings: tuple[str, ...], words: str, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    arguments = [
        "training",
        "--local",
        "docker",
        "--lock",
        str(compiling.GOLDEN_LOCK),
        "--params",
        str(repository / "params.yaml"),
        *settings,
    ]
    error = CliRunner().invoke(submit.command, arguments).exception
    assert isinstance(error, ConfigError)
    assert words in str(error)
    assert "to do: " in str(error)
