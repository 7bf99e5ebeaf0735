"""The one way to open a file of annotations: a plain file of a size that annotations have, never waited for."""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from capnet.errors import DataError

MOST_BYTES = 8 * 2**30  # of a file that is read piece by piece; COCO's largest has 0.5
MOST_TEXT = 256 * 2**20  # of a list
MOST_LINES = 10_000_000  # of a list
MOST_LISTED = 1_000_000  # lines of a published list, which is kept whole; NUS-WIDE's largest has 161,789
LONGEST_LINE = 8 * 2**20  # letters: thirty thousand classes with a column each
EXPORTS = "docs/data-formats.md, Exports of other tools, has the lines that make labels.csv from other formats"


def open_plain(path: Path, most: int = MOST_BYTES) -> BinaryIO:
    """Open a file for reading bytes.

    Args:
        path: of a plain file.
        most: bytes that it may have.

    Raises:
        OSError: there is none, it is a pipe, a device or a folder, or it is larger.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    state = os.fstat(handle)
    is_plain = stat.S_ISREG(state.st_mode)
    if is_plain and state.st_size <= most:
        return os.fdopen(handle, "rb")
    os.close(handle)
    if is_plain:
        raise OSError(errno.EFBIG, f"{state.st_size:,} bytes, at most {most:,} are read", str(path))
    raise OSError(errno.EINVAL, "a pipe, a device or a folder, and no file", str(path))


def read_lines(path: Path, most: int = MOST_LINES) -> Iterator[str]:
    """The lines of a text, one at a time and without their ends: a newline, a carriage return or both, and nothing else
    that Unicode calls the end of a line, because names of files may have it.

    Args:
        path: of a UTF-8 text, with or without a byte order mark.
        most: lines that it may have.

    Raises:
        OSError: see open_plain; there are more lines, or one is longer than LONGEST_LINE.
        UnicodeDecodeError: it is no UTF-8.
    """
    number = 0
    with open_plain(path, MOST_TEXT) as file:
        try:
            with io.TextIOWrapper(file, encoding="utf-8-sig") as text:
                while part := text.readline(LONGEST_LINE):
                    if len(part) == LONGEST_LINE and not part.endswith("\n"):
                        raise OSError(errno.EFBIG, f"a line of more than {LONGEST_LINE:,} letters", str(path))
                    number += 1
                    if number > most:
                        raise OSError(errno.EFBIG, f"more than {most:,} lines", str(path))
                    yield part.removesuffix("\n")
        except UnicodeDecodeError:
            with open_plain(path, MOST_TEXT) as again:
                again.read().decode("utf-8-sig")  # says the byte of the whole file
            raise


def read_list(path: Path, what: str, todo: str) -> list[str]:
    """The lines of a published list, without blank ones at its end.

    Args:
        path: as in ``read_lines``.
        what: the list is called, for messages.
        todo: what a user should do about a list that cannot be used.

    Raises:
        DataError: it cannot be read, or is empty.
    """
    try:
        lines = list(read_lines(path, MOST_LISTED))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {what}: {error}", str(path), todo) from None
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise DataError(f"{what} is empty", str(path), todo)
    return lines
