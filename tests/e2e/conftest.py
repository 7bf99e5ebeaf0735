"""A small data set of one's own, before and after all seven stages."""

from __future__ import annotations

from pathlib import Path

import pytest
from e2e.workspace import Workspace, small_workspace
from made_once import made_once


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """30 pictures, quick settings, nothing run yet."""
    return small_workspace(tmp_path)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The same after all seven stages. Shared by many tests in several processes: read only."""
    return Workspace(made_once(tmp_path_factory, "finished", lambda folder: small_workspace(folder).stages()))
