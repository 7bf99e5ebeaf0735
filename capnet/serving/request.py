"""Images as a request brings them: bytes or base64 (also as a data: URI), and paths only below a folder that whoever
serves has named. Every one is decoded before any is scored, within limits.
"""

from __future__ import annotations

import base64
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import islice
from pathlib import Path
from threading import Semaphore
from time import monotonic
from typing import Any

import numpy as np
import pandas as pd
from pydantic import Field, ValidationError

from capnet.data.images.decode import READ_AGAIN, Unusable, open_image
from capnet.data.images.image_files import inspect_image
from capnet.errors import CapnetError, ConfigError, DataError, Problem
from capnet.machine_faults import TRANSIENT
from capnet.section import LONGEST_PATH, Int, Section

COLUMN = "image"
VARIABLE = "CAPNET_SERVE_"
MEGA = 10**6
SEND, WHOLE = "send the bytes of an image file or their base64", "send the whole file: this one is cut or damaged"
BASE64 = str.maketrans("-_", "+/", "\r\n")  # the URL-safe alphabet, and line breaks of some encoders
ARRIVED: ContextVar[float] = ContextVar("when the whole body of a request was there")  # may wait for a thread then
NO_IMAGE = f"neither an image in base64 nor a file below {VARIABLE}ROOT"  # of any path, whether there is a file or not


class Limits(Section):
    """What a served model takes from one request; each is an environment variable, such as CAPNET_SERVE_SECONDS."""

    root: str = Field("", description="folder whose images a request may name by path; empty: no paths")
    images: Int = Field(64, ge=1, description="most images")
    megabytes: float = Field(64.0, gt=0, description="most bytes of all images together, in millions")
    megapixels: float = Field(50.0, gt=0, description="most pixels of one image, in millions")
    seconds: float = Field(50.0, gt=0, description="most time, looked at between images")  # MLflow's own end is at 60
    at_once: Int = Field(2, ge=1, description="most requests that are scored at once; others wait")


class TooSlow(DataError):
    """A request has had its time."""


class Clock:
    """The limits of one request, and the time that it has left."""

    def __init__(self, limits: Limits) -> None:
        self.limits, self._end = limits, ARRIVED.get(monotonic()) + limits.seconds

    def check(self) -> None:
        """Raise TooSlow where the time is over."""
        if monotonic() > self._end:
            raise TooSlow(
                f"not done after {self.limits.seconds:g} seconds",
                "request",
                f"send fewer or smaller images; the limit is {VARIABLE}SECONDS of the server",
            )

    @contextmanager
    def turn(self, turns: Semaphore) -> Iterator[None]:
        """Hold a turn; waiting for it takes time of the request. Raises TooSlow where there was none."""
        left = self._end - monotonic()
        if left <= 0 or not turns.acquire(timeout=left):
            raise TooSlow(
                f"no turn within {self.limits.seconds:g} seconds",
                "request",
                f"send it again later; the limit is {VARIABLE}AT_ONCE of the server",
            )
        try:
            yield
        finally:
            turns.release()


def read_limits() -> Limits:
    """The limits that the environment sets.

    Raises:
        ConfigError: variables have values that are not allowed; names every one.
    """
    names = {name: f"{VARIABLE}{name.upper()}" for name in Limits.model_fields}
    try:
        limits = Limits.model_validate({name: os.environ[key] for name, key in names.items() if os.environ.get(key)})
    except ValidationError as error:
        raise ConfigError(
            problems=[
                Problem(
                    f"{names[str(item['loc'][0])]} = {item['input']!r}: {item['msg']}",
                    "environment",
                    str(Limits.model_fields[str(item["loc"][0])].description),
                )
                for item in error.errors()
            ]
        ) from None
    if limits.root and not Path(limits.root).is_dir():
        raise ConfigError(f"{names['root']} = {limits.root!r} is no folder", "environment", "name one, or unset it")
    return limits


def request_files(model_input: pd.DataFrame, folder: Path, *clocks: Clock | Limits) -> list[Path]:
    """A file per image, written to ``folder``.

    Args:
        model_input: has a column ``image``.
        folder: where the images are written.
        clocks: the clock: what the request may hold, and the time that it has left. The copies of ``pyfunc.py`` that
            earlier versions registered with their models give the limits before it, or neither.

    Raises:
        DataError: there is no such column, or a row is no image within the limits; every such row is named.
        TooSlow: the request has had its time.
        ConfigError: no clock is given, and the limits of the environment are none.
        CapnetError, OSError: the machine does not read an image, which may be good.
    """
    clock = next((item for item in clocks if isinstance(item, Clock)), None) or Clock(read_limits())
    limits = clock.limits
    if COLUMN not in getattr(model_input, "columns", ()):
        raise DataError(
            f"no column {COLUMN!r}", "input", f"send a table with a column {COLUMN!r}: bytes or base64 of the files"
        )
    values = list(_values(model_input[COLUMN], limits.images))
    if len(values) > limits.images:
        raise DataError(
            f"more than {limits.images} images",
            "input",
            f"send them in several requests; the limit is {VARIABLE}IMAGES of the server",
        )
    paths, problems, left = [], [], int(limits.megabytes * MEGA)
    for number, value in enumerate(values):
        clock.check()
        path = folder / f"row {number}"
        content = _file(value, limits, left)
        fault, todo = (NO_IMAGE, SEND) if content is None else _fault(content, path, limits, left)
        if fault:  # a file that is no image is as good as none: no answer tells what lies there
            content = _content(value)
            fault, todo = (NO_IMAGE, SEND) if content is None else _fault(content, path, limits, left)
        if fault:
            problems.append(Problem(f"{fault}: {_shown(value if content is None else content)}", f"row {number}", todo))
        else:
            left -= path.stat().st_size
        paths.append(path.absolute())
    if problems:
        raise DataError(problems=problems)
    return paths


def _fault(content: bytes, path: Path, limits: Limits, left: int) -> tuple[str, str]:
    """Why an image is not scored ("" where it is, and its bytes are in ``path``), and what helps."""
    if len(content) > left:
        fault = f"more than {limits.megabytes:g} million bytes of images"
        return fault, f"send fewer or smaller images; the limit is {VARIABLE}MEGABYTES of the server"
    try:
        with open_image(content) as image:
            if image.width * image.height > limits.megapixels * MEGA:
                fault = f"{image.width} x {image.height} is more than {limits.megapixels:g} million pixels"
                return fault, f"send a smaller image; the limit is {VARIABLE}MEGAPIXELS of the server"
        path.write_bytes(content)
        if (written := inspect_image(path)).is_transient:
            raise CapnetError(written.fault, str(path), READ_AGAIN)
        fault = written.fault
    except Unusable as error:
        fault = str(error)
    if "pixels" in fault:  # too many, of a strange kind, or in too long a strip
        most = f"at most {limits.megapixels:g} million pixels"
        return fault, f"crop it, make it smaller ({most}), or save it anew as JPEG or PNG"
    return fault, WHOLE if "does not decode" in fault else SEND


def _values(column: pd.Series, most: int) -> Iterator[Any]:
    """One value an image, up to one more than ``most``: MLflow makes one row of a request's {"inputs": {"image":
    [...]}}, with the list in its cell. A list in one of several rows is no image: the numbers of those after it would
    be others in the answer.
    """
    cells = column.iloc[0] if len(column) == 1 and isinstance(column.iloc[0], list | tuple | np.ndarray) else column
    return islice(cells, most + 1)


def _content(value: Any) -> bytes | None:
    """Bytes as they are, or decoded from base64 (also URL-safe, with or without padding); None where the value is
    neither.
    """
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if not isinstance(value, str):
        return None
    text = value.partition(",")[2] if value.startswith("data:") else value
    if not text.isascii():
        return None  # translating it would take seconds and block all threads
    plain = text.translate(BASE64)
    padding = "" if "/" in text else "=" * (-len(plain) % 4)  # what has a / and no padding is a path
    try:
        return base64.b64decode(plain + padding, validate=True) or None
    except ValueError:
        return None


def _file(name: Any, limits: Limits, left: int) -> bytes | None:
    """The bytes of a plain file below the root, at most one more than ``left``; None where there is none, or no root.

    A pipe or a device is not waited for.
    """
    if not limits.root or not isinstance(name, str) or not 0 < len(name) <= LONGEST_PATH:
        return None
    try:
        # no link outside the root is followed, also where a name leaves it and comes back: an answer would show it
        named, root = Path(os.path.abspath(limits.root)), Path(limits.root).resolve()
        path = Path(os.path.normpath(named / name))
        if not (path.is_relative_to(named) or path.is_relative_to(root)):
            return None
        path = path.resolve()
        if not path.is_relative_to(root):
            return None
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW), "rb") as file:
            return file.read(left + 1) if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else None
    except (OSError, ValueError, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno in TRANSIENT and _content(name) is None:
            raise  # the machine's fault: the image may be good
        return None


def _shown(value: Any) -> str:
    """A value for the answer and the log: nothing of an image, which may also be within a list."""
    if isinstance(value, bytes | bytearray | memoryview):
        return f"{len(value)} bytes"
    return f"a {type(value).__name__}" if isinstance(value, list | tuple | dict | np.ndarray) else repr(str(value)[:60])
