"""The import graph of capnet/, read from the source."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.dvc_file import Module, read_modules


@pytest.fixture(scope="session")
def modules(repository: Path) -> dict[str, Module]:
    return read_modules(repository)
