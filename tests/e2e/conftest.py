"""A small data set of one's own, before and after all seven stages."""

from __future__ import annotations

from pathlib import Path

import pytest
from e2e.workplace import Workplace, small_place
from made_once import made_once


@pytest.fixture
def workplace(tmp_path: Path) -> Workplace:
    """30 pictures, quick settings, nothing run yet."""
    return small_place(tmp_path)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """The same after all seven stages. Shared by many tests in several processes: read only."""
    return Workplace(made_once(tmp_path_factory, "finished", lambda folder: small_place(folder).stages()))
