"""What all tests may use."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared"
# real weights, MLflow stores and servers: what takes one of them is slow without a marker of its own
SLOW_FIXTURES = {"lit", "client", "database", "no_database", "three_versions", "server"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        call = getattr(item, "callspec", None)
        # a test that is given the name "lit" asks for the fixture itself
        named = {value for value in call.params.values() if isinstance(value, str)} if call else set()
        if SLOW_FIXTURES & {*getattr(item, "fixturenames", ()), *({"lit"} & named)}:
            item.add_marker(pytest.mark.slow)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """What is imported stays, so the garbage collector need not go through all of it again and again, during imports
    and later.
    """
    gc.disable()
    result = yield
    gc.freeze()
    gc.enable()
    return result


def pytest_runtest_setup() -> None:
    """open_clip reads its vocabulary anew for every model, which takes longer than to build and load a tiny one."""
    factory: Any = sys.modules.get("open_clip.factory")
    if factory is not None and isinstance(factory.SimpleTokenizer, type):
        factory.SimpleTokenizer = cache(factory.SimpleTokenizer)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the repository."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and reference numbers beside the repository; without it the test is skipped, on CI it
    fails.
    """
    if not SHARED.is_dir():
        reason = (
            "the folder shared/ with real data and reference numbers is not there; it belongs beside the repository"
        )
        if os.environ.get("CI") == "true":
            pytest.fail(f"{reason}, and on CI these tests must run")
        pytest.skip(reason)
    return SHARED
