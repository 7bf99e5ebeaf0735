"""Errors that a user can act on: what is wrong, where, and what to do; collected, not one at a time. What the machine
does to a run (a full disk, a folder that is read-only, too little memory) is among them.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import NoReturn

from capnet.redaction import redact, steers_nothing

SHOWN = 20  # problems printed in full; the rest are counted
MOST = 100_000  # problems that are looked for: more fill the memory, and nobody reads them
LONGEST = 4000  # letters of one part of a message

PROBE = 1 << 20  # bytes; less room than that is none
MACHINE = {
    errno.ENOSPC: "make room there, or choose another folder",
    errno.EDQUOT: "make room there, or have the quota raised",
    errno.EFBIG: "raise the largest size of a file (ulimit -f), or choose another file system",
    errno.EROFS: "choose a folder that may be written to",
    errno.EACCES: "let this account read it, or write to it (chmod, chown), or choose another",
    errno.EPERM: "let this account read it, or write to it (chmod, chown), or choose another",
    errno.ENOTDIR: "choose a folder, or remove the file that is in its place",
    errno.EEXIST: "choose a folder, or remove the file, or the link to nothing, that is in its place",
    errno.EISDIR: "choose a file, or remove the folder that is in its place",
    errno.EMFILE: "raise the number of open files (ulimit -n)",
    errno.ENOMEM: "give the task more memory",
    errno.EIO: "look at the disk or the network that it is on",
}
UNNAMED = "standard output, or another file without a name"  # of an error that names no file
# what says nothing of a file: the disk or the network fails for the moment, or too many files are open
PASSING = (
    *(errno.EIO, errno.EREMOTEIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOLINK),
    *(errno.ENOTCONN, errno.ECONNABORTED, errno.ECONNRESET, errno.ESHUTDOWN),
    *(errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH),
    *(errno.EMFILE, errno.ENFILE),
)
# torch's allocators, oneDNN: each says it in its own words, as a RuntimeError
NO_MEMORY = ("allocate memory", "out of memory", "create a primitive", "bad_alloc")
NO_THREAD = "can't start new thread"
NO_GPU_MEMORY = ("cuda out of memory", "cublas_status_alloc_failed", "cuda error: out of memory")
MEMORY = "give the task more memory, or set train.batch_size, runtime.threads or runtime.workers lower"
PROCESSES = "raise the limit (ulimit -u, pids of a container), or set runtime.workers or runtime.threads lower"
GPU_MEMORY = "set train.batch_size or train.prompt.chunk lower, runtime.precision: bf16, or take a larger GPU"


class _Redacted:
    """A text whose credentials are hidden when it is read: of a hundred thousand problems few are shown, and each
    search takes a tenth of a millisecond.
    """

    def __init__(self, default: str | None = None) -> None:
        self._default = default

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = f"_{name}"

    def __get__(self, owner: object | None, kind: type | None = None) -> str:
        if owner is not None:
            return redact(owner.__dict__[self._name])
        if self._default is None:
            raise AttributeError(self._name)  # a dataclass takes it for a field without a default
        return self._default

    def __set__(self, owner: object, text: str) -> None:
        owner.__dict__[self._name] = _ends(text, 4 * LONGEST)


@dataclass(frozen=True)
class Problem:
    """One mistake: ``what`` is wrong (with the value), ``where`` (file, row, class), what ``todo``; credentials in it
    are hidden.
    """

    what: _Redacted = _Redacted()
    where: _Redacted = _Redacted("")
    todo: _Redacted = _Redacted("")

    def __str__(self) -> str:
        lines = [shown(self.what)]
        if self.where:
            lines.append(f"  where: {shown(self.where)}")
        if self.todo:
            lines.append(f"  to do: {shown(self.todo)}")
        return "\n".join(lines)


def shown(text: str) -> str:
    """A text of a stranger's as a message quotes it: no longer than a page, with nothing that steers a terminal.

    Args:
        text: of any origin, such as the name of a file.
    """
    return steers_nothing(_ends(text, LONGEST))


def one_line(text: str) -> str:
    """A text that others may have written, such as a tag of the registry, for a line of output."""
    return shown(" ".join(text.splitlines()))


def _ends(text: str, letters: int) -> str:
    """A text, or its first and last letters where it has more. More are searched for credentials than shown, so that no
    credential is cut.
    """
    return text if len(text) <= letters else f"{text[: letters // 2]} ... {text[-letters // 2 :]}"


def some(names: Sequence[str], most: int = 5) -> str:
    """The first ``most`` of a list of names for a sentence, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def counted(number: int, singular: str, plural: str = "") -> str:
    """``1 class``, ``3 classes``.

    Args:
        number: written with commas between thousands.
        singular, plural: of the word; by default the plural is the singular and an s.
    """
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"


def megabytes(size: int) -> str:
    """A number of bytes in words."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


class CapnetError(Exception):
    """Base of all errors that are the input's fault; ``exit_code`` is the command's exit status."""

    exit_code = 1
    title = ""

    def __init__(self, what: str = "", where: str = "", todo: str = "", *, problems: Sequence[Problem] = ()) -> None:
        self.problems: list[Problem] = [Problem(what, where, todo)] if what else []
        self.problems.extend(problems)
        super().__init__(str(self))

    @property
    def heading(self) -> str:
        """The first line of the message: ``settings error``, or ``error`` where no word says which."""
        return f"{self.title} error".strip()

    def __str__(self) -> str:
        texts = [str(problem) for problem in self.problems[:SHOWN]]
        if len(self.problems) > SHOWN:
            texts.append(f"... and {len(self.problems) - SHOWN} more")
        return "\n".join(texts)


class ConfigError(CapnetError):
    """A setting is unknown or out of range (exit code 2)."""

    exit_code = 2
    title = "settings"


class DataError(CapnetError):
    """The user's images, labels or weights cannot be read or used (exit code 3)."""

    exit_code = 3
    title = "data"


class Problems(list[Problem]):
    """Mistakes of a stranger's file; the one with number MOST ends the search with a DataError."""

    def append(self, problem: Problem) -> None:
        super().append(problem)
        if len(self) >= MOST:
            raise DataError(problems=self)


class ContractError(CapnetError):
    """A file between two stages is missing, of another version, or made for other classes (exit code 4)."""

    exit_code = 4
    title = "contract"


class GateError(CapnetError):
    """A gate refused: data validation, promotion, or a prediction that was to fail on drift (exit code 5)."""

    exit_code = 5
    title = "gate"


@contextmanager
def exits(name: str) -> Iterator[None]:
    """A CapnetError inside becomes its three-part message, under the ``name`` of the command, and its exit code."""
    try:
        yield
    except CapnetError as error:
        if "--traceback" in sys.argv:
            raise
        sys.stderr.write(f"{name}: {error.heading}\n{error}\n")
        sys.exit(error.exit_code)


def stopped() -> NoReturn:
    """End after Ctrl-C."""
    sys.stderr.write("\ncapnet: stopped; the same command again goes on\n")
    sys.exit(1)


@contextmanager
def machine_faults(where: Path | str = "", doing: str = "") -> Iterator[None]:
    """Whatever the machine refuses inside is a CapnetError.

    Args:
        where: what the message names; "" takes the path that the error names.
        doing: what did not work, for the message.
    """
    try:
        yield
    except (ImportError, MemoryError, OSError, RuntimeError) as error:
        fault = machine_fault(error, str(where), doing)
        if fault is None:
            raise
        raise fault from error


def machine_fault(error: Exception, where: str = "", doing: str = "") -> CapnetError | None:
    """An error of the machine as a message.

    Args:
        error: as it was raised.
        where: what the message names; "" takes the path that the error names.
        doing: what did not work, for the message.

    Returns:
        The error to raise; None where ``error`` is none of the machine's.
    """
    head = f"{doing}: " if doing else ""
    if any(words in str(error).lower() for words in NO_GPU_MEMORY):
        reason = " ".join(str(error).split())[:300]
        return CapnetError(f"{head}the GPU has not enough memory: {reason}", where or "this process", GPU_MEMORY)
    if "no kernel image is available" in str(error):
        todo = "take a torch that is built for this GPU (another CUDA index of its wheels), or set runtime.device: cpu"
        return CapnetError(f"{head}this torch has no kernels for this GPU", where or "this process", todo)
    if isinstance(error, MemoryError) or any(words in str(error).lower() for words in NO_MEMORY):
        return CapnetError(f"{head}there is not enough memory", where or "this process", MEMORY)
    # of a fork; other words are those of a write to a stream that does not wait
    no_process = isinstance(error, BlockingIOError) and error.strerror == os.strerror(errno.EAGAIN)
    if no_process or NO_THREAD in str(error):
        what = "no more processes and threads can be started: their number is limited, or memory ran out"
        return CapnetError(f"{head}{what}", where or "this process", PROCESSES)
    if "failed to map segment" in str(error):  # an ImportError of a library in C, without a number
        todo = "give the task more memory, or install the libraries where the file system is not mounted noexec"
        return CapnetError(f"{head}{error}", where or "this process", todo)
    if not isinstance(error, OSError):
        return None
    number = error.errno or next((n for n in MACHINE if os.strerror(n) in str(error)), 0)
    reason = error.strerror or " ".join(str(error).split()) or type(error).__name__
    path = str(error.filename2 or error.filename or "")
    todo = MACHINE.get(number, "see that it is there, may be used and has room; `capnet --traceback` says more")
    return CapnetError(f"{head}{reason}", where or path or UNNAMED, todo)


def refuse_unread(error: Exception, path: Path) -> None:
    """Raise CapnetError where ``error`` says that the machine does not read ``path``, whose content may be good."""
    if isinstance(error, OSError) and error.errno in (*PASSING, errno.EACCES, errno.EPERM):
        named = OSError(error.errno, os.strerror(error.errno))  # pyarrow's words say it twice
        raise machine_fault(named, str(path), "it cannot be read") or error from error


def check_writable(folder: Path) -> None:
    """Raise OSError where nothing, or next to nothing, can be written into a folder: before hours of work."""
    with TemporaryFile(dir=folder) as file:  # without a name, so that a kill leaves none
        file.write(bytes(PROBE))
        file.flush()


def check_room(folder: Path, needed: int, todo: str) -> None:
    """Refuse to write more than the disk has left.

    Args:
        folder: on that disk.
        needed: bytes.
        todo: what to do where there is less.

    Raises:
        CapnetError: there is less.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise CapnetError(f"{megabytes(needed)} are needed, the disk has {megabytes(free)} left", str(folder), todo)
