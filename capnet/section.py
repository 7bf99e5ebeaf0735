"""What every section is made of."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from capnet.errors import Problem

# nearly every path: nothing to normalise, a name and one suffix
PLAIN_PATH = re.compile(
    r"(?:[^/\\:.\0\ud800-\udfff][^/\\:\0\ud800-\udfff]*+/)*+[^/\\:.\0\ud800-\udfff]++\.[A-Za-z0-9]+"
)
SURROGATE = re.compile(r"[\ud800-\udfff]")  # which JSON can write, and no text holds: half of a pair in UTF-16
LONGEST_PATH = 4096  # letters; Linux takes as many bytes


def _safe_integer(value: Any) -> Any:
    """KFP turns 10 into 10.0: accept an integral float, refuse true and false and what a double cannot hold exactly."""
    if isinstance(value, bool):
        raise ValueError("a number is wanted, not true or false")
    if isinstance(value, int | float) and abs(value) > 2**53:
        raise ValueError("integers above 2^53 do not survive a pipeline parameter")
    return value


def path_fault(path: str) -> str:
    """Say why a path cannot name a file inside the data folder.

    Args:
        path: as a person or a label file wrote it.

    Returns:
        The fault as a sentence without its full stop; empty where the path is relative and stays inside.
    """
    if len(path) > LONGEST_PATH:
        return f"path {path[:40]!r}... has {len(path):,} letters, at most {LONGEST_PATH:,} are possible"
    if PLAIN_PATH.fullmatch(path):
        return ""
    posix = PurePosixPath(path)
    if not path:
        return "the path is empty"
    if not posix.name:
        return f"path {path!r} names no file"
    if posix.is_absolute() or PureWindowsPath(path).is_absolute() or "://" in path:
        return f"path {path!r} is absolute"
    if ".." in posix.parts:
        return f"path {path!r} leaves the data folder"
    if "\\" in path:
        return f"path {path!r} has backslashes"
    if SURROGATE.search(path):
        return f"path {path!r} has an unpaired surrogate, which is no character"
    return f"path {path!r} has a zero byte" if "\0" in path else ""


def _inside(path: str) -> str:
    fault = path_fault(path) if path else ""
    if not fault and PureWindowsPath(path).drive:
        fault = f"path {path!r} has a drive letter"
    if fault:
        raise ValueError(f"{fault}: write it relative to the data folder, with / between folders")
    return path


def problems_of(error: ValidationError, where: str, todo: str = "") -> list[Problem]:
    """Every finding of pydantic in three parts: the key with its value, and what is wrong with it."""
    return [Problem(_finding(item), where, todo) for item in error.errors()]


def _finding(item: Mapping[str, Any]) -> str:
    """What is wrong with a key, or with all keys together; pydantic names classes of ours, which users do not know."""
    path, value = ".".join(map(str, item["loc"])), item.get("input")
    if item["type"] == "model_type":
        return f"{path or 'the whole'} = {value!r}: keys with values are wanted"
    message = item["msg"].removeprefix("Value error, ")
    shown = "" if isinstance(value, Mapping | BaseModel) else f" = {value!r}"
    return f"{path}{shown}: {message}" if path else message


Int = Annotated[int, BeforeValidator(_safe_integer)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
# a file or folder below the data folder, or nothing: DVC and a pipeline carry only what is in that folder
InsidePath = Annotated[str, AfterValidator(_inside)]


class NoFile:
    """Marks the type of a setting whose text names no file."""


# a text setting of a reader that names no file, such as a category; any other text must be an InsidePath
Word = Annotated[str, NoFile]


class Section(BaseModel):
    """Base of all sections: immutable, no unknown keys, no infinite numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _no_truth_values(cls, content: Any) -> Any:
        """Refuse true for a share or a rate: pydantic takes it for 1.0."""
        numbers = [name for name, field in cls.model_fields.items() if field.annotation is float]
        if isinstance(content, Mapping):
            wrong = [f"{name} = {content[name]}" for name in numbers if isinstance(content.get(name), bool)]
            if wrong:
                raise ValueError(f"{', '.join(wrong)}: a number is wanted, not true or false")
        return content

    @model_validator(mode="after")
    def _no_zero_bytes(self) -> Self:
        """Refuse what the system takes for no name of a file."""
        names = [name for name, value in self if isinstance(value, str) and "\0" in value]
        if names:
            raise ValueError(f"{', '.join(names)}: a text with a zero byte")
        return self

    @classmethod
    def __pydantic_init_subclass__(cls, **arguments: Any) -> None:
        """Refuse a section with a setting of type Path, which would name any file of the machine, or of plain int,
        which takes true for 1.

        Raises:
            TypeError: names the setting.
        """
        for name, field in cls.model_fields.items():
            if field.annotation is int and not any(isinstance(item, BeforeValidator) for item in field.metadata):
                raise TypeError(f"{cls.__module__}: setting {name} is an int: make it an Int")
            if "pathlib" in repr(field.annotation):
                raise TypeError(f"{cls.__module__}: setting {name} is a Path: make it an InsidePath, or text")
