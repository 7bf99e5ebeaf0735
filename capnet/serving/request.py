"""Images as a request brings them: bytes, base64 (also as a data: URI) or paths. Every one is decoded before any is
scored.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from capnet.data.images.image_files import inspect_image
from capnet.errors import DataError, Problem

COLUMN = "image"
LONGEST_PATH = 4096


def request_files(model_input: pd.DataFrame, folder: Path) -> list[Path]:
    """A readable file per row; content is written to ``folder``. Raises DataError naming every row that is no
    image.
    """
    if COLUMN not in getattr(model_input, "columns", ()):
        raise DataError(
            f"no column {COLUMN!r}",
            "input",
            f"send a table with a column {COLUMN!r}: bytes, base64 of the files, or paths",
        )
    paths, problems = [], []
    for number, value in enumerate(_values(model_input[COLUMN])):
        content = _content(value)
        path = folder / f"row {number}" if content is not None else Path(str(value))
        if content is not None:
            path.write_bytes(content)
        fault = (
            inspect_image(path).fault
            if content is not None or _is_file(value)
            else "neither an image in base64 nor a file"
        )
        if fault:
            problems.append(
                Problem(
                    f"{fault}: {_shown(value)}",
                    f"row {number}",
                    "send the bytes of an image file, their base64, or a path that exists here",
                )
            )
        paths.append(path.absolute())
    if problems:
        raise DataError(problems=problems)
    return paths


def _values(column: pd.Series) -> Iterator[Any]:
    """One value an image: MLflow makes one row of a request's {"inputs": {"image": [...]}}, with the list in its
    cell.
    """
    for value in column:
        yield from value if isinstance(value, list | tuple | np.ndarray) else (value,)


def _content(value: Any) -> bytes | None:
    """Bytes as they are, or what base64 stands for; None where the value can only be a path."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    text = str(value)
    if text.startswith("data:"):
        text = text.partition(",")[2]
    elif _is_file(value):
        return None  # a short name may be base64 as well
    try:
        # some encoders break lines
        return base64.b64decode(text.replace("\r", "").replace("\n", ""), validate=True) or None
    except (binascii.Error, ValueError):
        return None


def _is_file(value: Any) -> bool:
    try:
        return isinstance(value, str) and 0 < len(value) <= LONGEST_PATH and Path(value).is_file()
    except (OSError, ValueError):
        return False


def _shown(value: Any) -> str:
    return f"{len(value)} bytes" if isinstance(value, bytes | bytearray | memoryview) else repr(str(value)[:60])
