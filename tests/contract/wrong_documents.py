"""Documents that are wrong in one place, for the tests of the stand-ins."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

Change = Callable[[Any], Any]


def put(*path: Any, value: Any) -> Change:
    """A change that writes ``value`` at a path of keys and numbers."""

    def change(document: Any) -> None:
        for key in path[:-1]:
            document = document[key]
        document[path[-1]] = value

    return change


def drop(*path: Any) -> Change:
    def change(document: Any) -> None:
        for key in path[:-1]:
            document = document[key]
        del document[path[-1]]

    return change


def add(*path: Any, value: Any) -> Change:
    def change(document: Any) -> None:
        for key in path:
            document = document[key]
        document.append(value)

    return change


def params(cases: list[tuple[Change, str, str]]) -> Any:
    """Cases named by what is said against them and by whom."""
    ids = [f"{words[:40]} ({source})" for _, words, source in cases]
    return pytest.mark.parametrize(("change", "words", "source"), cases, ids=ids)


def assert_named(items: Iterable[str], words: str) -> None:
    assert any(words in item for item in items), words
