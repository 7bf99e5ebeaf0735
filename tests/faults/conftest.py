"""A run of all stages but register, for tests that break the machine under it."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from e2e.warm import PRINTED
from e2e.workspace import QUICK, STORE, Workspace, merge, small_rows, small_workspace
from faults.command import begin, end, output_of
from made_once import made_once
from unit.conftest import TINY

from capnet.stages import STAGES

IS_LONG = os.environ.get("FAULTS") == "all"
collect_ignore = [] if IS_LONG and os.geteuid() == 0 else ["test_full_disks.py", "test_workers.py"]  # they mount


@pytest.fixture(scope="session")
def imported() -> None:
    """What stages and commands import, so that forks of this process begin at once."""
    import great_expectations  # noqa: F401
    import mlflow.pyfunc
    import mlflow.tracking  # noqa: F401
    import open_clip  # noqa: F401
    import sklearn.linear_model  # noqa: F401
    import torch  # noqa: F401

    import capnet.registry.register  # noqa: F401


@pytest.fixture(scope="session")
def finished(imported: None, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """All stages but register, run once."""
    made = made_once(tmp_path_factory, "finished", lambda folder: small_workspace(folder).stages())
    left_out = shutil.ignore_patterns("registration.json", *STORE, *PRINTED)
    return Workspace(Path(shutil.copytree(made, tmp_path_factory.mktemp("faults") / "workspace", ignore=left_out)))


@pytest.fixture
def workspace(finished: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "workspace"
    shutil.copytree(finished.root, folder)
    monkeypatch.setenv("CAPNET_STATE", str(folder / ".capnet"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return folder


TINY_SETTINGS = merge(
    QUICK,
    {
        "backbone": {"name": "tiny-random-clip", "pretrained": "random"},
        "runtime": {"workers": 2},
        "train": {"epochs": 15 if IS_LONG else 4},
    },
)


@pytest.fixture(scope="session")
def tiny_finished(imported: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All seven stages of a model of 32 pixels, run once: 64 pictures, so that processes decode them, and a folder of
    600 that predict scores in three parts.
    """
    import open_clip

    made = made_once(tmp_path_factory, "tiny", _tiny)
    open_clip.add_model_config(made / "tiny-random-clip.json")
    return made / "workspace"


def _tiny(folder: Path) -> None:
    import open_clip

    root = folder / "workspace"
    (root / "data").mkdir(parents=True)
    (folder / "tiny-random-clip.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(folder / "tiny-random-clip.json")  # and for the forks of this process
    workspace = Workspace(root)
    workspace.labels(small_rows(root / "data", 64))
    workspace.settings(TINY_SETTINGS)
    (root / "new").mkdir()
    for number in range(600):
        shutil.copy(root / f"data/images/{number % 64:03}.jpg", root / f"new/{number:03}.jpg")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAPNET_STATE", str(root / ".capnet"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        for stage in STAGES:
            assert end(begin(root, stage)) == 0, output_of(root)


@pytest.fixture
def tiny_workspace(tiny_finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that run, and an empty folder for temporary files beside it."""
    folder, temporary = tmp_path / "workspace", tmp_path / "temporary"
    shutil.copytree(tiny_finished, folder)
    temporary.mkdir()
    monkeypatch.setenv("CAPNET_STATE", str(folder / ".capnet"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    return folder
