"""`pipelines.submit --local docker` before the first container: what it refuses, and how containers see this
machine.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from capnet.config import parse
from capnet.errors import ConfigError, DataError
from pipelines import compiling, submit

pytestmark = pytest.mark.slow

SERVER = "http://127.0.0.1:5000"


@pytest.fixture(autouse=True)
def no_server_of_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def seen(root: str, **changes: Any) -> tuple[Any, str, dict[str, Any]]:
    options = {"pictures": "", "data_volume": False, **changes}
    params, pictures = submit._in_containers(
        parse({"data": {"root": root}, "register": {"tracking_uri": SERVER}}, "a test"), options
    )
    return params, pictures, options


def test_a_local_folder_is_mounted_as_the_volume_with_pictures(tmp_path: Path) -> None:
    params, pictures, options = seen(str(tmp_path))
    assert (params.data.root, pictures, options["data_volume"]) == ("/mnt/data", str(tmp_path), True)


def test_a_bucket_needs_no_mount() -> None:
    params, pictures, options = seen("s3://birds/set")
    assert (params.data.root, pictures, options["data_volume"]) == ("s3://birds/set", "", False)


def test_pictures_to_predict_take_the_place_of_the_data(tmp_path: Path) -> None:
    params, pictures, options = seen("s3://birds/set", pictures=str(tmp_path))
    assert (params.data.root, pictures, options["pictures"]) == ("/mnt/data", str(tmp_path), "")
    params, pictures, options = seen("birds", pictures="s3://birds/new")
    assert (pictures, options["pictures"]) == ("", "s3://birds/new")


def test_a_missing_folder_is_named() -> None:
    with pytest.raises(DataError, match="there is no such folder"):
        seen("nowhere")


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
