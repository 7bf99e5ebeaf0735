"""Which parts of a stage's JSON have which form: a word in the place of a number is refused where the file is read, and
not where a page or a card is written hours later.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

Form = Callable[[Any, str], None]


def check(content: Any, form: Form) -> None:
    """Raises ValueError that names the first part of ``content`` that has not this form."""
    form(content, "")


def number(value: Any, name: str) -> None:
    """A finite number, and neither true nor false."""
    try:
        fine = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        fine = False
    _refuse(fine, name, value, "a number")


def count(value: Any, name: str) -> None:
    """A whole number from 0 on, of at most 2^53."""
    fine = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 2**53
    _refuse(fine, name, value, "a whole number from 0 on")


def share(value: Any, name: str) -> None:
    """A number from 0 to 1."""
    number(value, name)
    _refuse(0 <= value <= 1, name, value, "a number from 0 to 1")


def positive(value: Any, name: str) -> None:
    """A number above 0."""
    number(value, name)
    _refuse(value > 0, name, value, "a number above 0")


def text(value: Any, name: str) -> None:
    _refuse(isinstance(value, str), name, value, "text")


def flag(value: Any, name: str) -> None:
    _refuse(isinstance(value, bool), name, value, "true or false")


def or_null(form: Form) -> Form:
    """That form, or null."""
    return lambda value, name: None if value is None else form(value, name)


def each(form: Form) -> Form:
    """A list of values that all have a form."""

    def check_list(value: Any, name: str) -> None:
        _refuse(isinstance(value, list), name, value, "a list")
        for position, item in enumerate(value):
            form(item, f"{name}[{position}]")

    return check_list


def under_any_name(form: Form) -> Form:
    """A mapping whose values all have a form."""

    def check_values(value: Any, name: str) -> None:
        _refuse(isinstance(value, Mapping), name, value, "a mapping")
        for key, item in value.items():
            form(item, f"{name}.{key}".lstrip("."))

    return check_values


def parts(needed: Mapping[str, Form] | None = None, **known: Form) -> Form:
    """A mapping with parts of these forms: ``needed`` must be there, ``known`` may be; others are passed over."""

    def check_parts(value: Any, name: str) -> None:
        _refuse(isinstance(value, Mapping), name, value, "a mapping")
        for key, form in {**known, **(needed or {})}.items():
            path = f"{name}.{key}".lstrip(".")
            if key in value:
                form(value[key], path)
            else:
                _refuse(key not in (needed or {}), path, None, "there")

    return check_parts


def _refuse(fine: bool, name: str, value: Any, what: str) -> None:
    if not fine:
        shown = type(value).__name__ if isinstance(value, int) and abs(value) > 2**64 else repr(value)[:80]
        raise ValueError(f"{name or 'the content'} is {shown}, and must be {what}")
