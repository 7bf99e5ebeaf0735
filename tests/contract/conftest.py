"""The import graph of capnet/, a compiler that stays quick, and what it makes of the training pipeline."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

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


@pytest.fixture(scope="module")
def compiled() -> tuple[dict[str, Any], dict[str, Any]]:
    """The training pipeline: its specification and its settings for Kubernetes."""
    from contract.compiled_pipeline import documents

    return documents("training")


@pytest.fixture(scope="module")
def several() -> tuple[dict[str, Any], dict[str, Any]]:
    """The same with several seeds, and with the pictures on a volume."""
    from contract.compiled_pipeline import documents

    return documents("training", further_seeds=True, data_volume=True)
