"""A run of all stages but register, for tests that break the machine under it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from e2e.workplace import Workplace, small_place

IS_LONG = os.environ.get("FAULTS") == "all"
collect_ignore = [] if IS_LONG and os.geteuid() == 0 else ["test_full_disks.py"]  # mounting takes root


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """All stages but register, run once, in this process's forks: what they import is imported here."""
    import great_expectations  # noqa: F401
    import mlflow.tracking  # noqa: F401
    import open_clip  # noqa: F401
    import sklearn.linear_model  # noqa: F401
    import torch  # noqa: F401

    place = small_place(tmp_path_factory.mktemp("faults"))
    place.stages(last="evaluate")
    return place


@pytest.fixture
def place(finished: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "place"
    shutil.copytree(finished.root, folder)
    monkeypatch.setenv("CAPNET_STATE", str(folder / ".capnet"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return folder
