"""The import graph of capnet/, read from the source, and a compiler that stays quick."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from pipelines.dvc_file import Module, read_modules


@pytest.fixture(scope="session")
def modules(repository: Path) -> dict[str, Module]:
    return read_modules(repository)


@pytest.fixture(autouse=True, scope="package")
def stack_without_source_lines() -> Iterator[None]:
    """KFP asks for a function's name on the stack; the source lines beside it make Python go through all modules, which
    are thousands here, ten times for every task that is compiled.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inspect, "stack", partial(inspect.stack, 0))
        yield
