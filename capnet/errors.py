"""Errors that a user can act on: what is wrong, where, and what to do; collected, not one at a time."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn

from capnet.redaction import redact, steers_nothing

SHOWN = 20  # problems printed in full; the rest are counted
MOST = 100_000  # problems that are looked for: more fill the memory, and nobody reads them
LONGEST = 4000  # letters of one part of a message


class _Redacted:
    """A text whose credentials are hidden when it is first read: of a hundred thousand problems few are shown, and each
    search takes a tenth of a millisecond.
    """

    def __init__(self, default: str | None = None) -> None:
        self._default = default

    def __set_name__(self, owner: type, name: str) -> None:
        self._name, self._shown = f"_{name}", f"_shown_{name}"

    def __get__(self, owner: object | None, kind: type | None = None) -> str:
        if owner is not None:
            values = owner.__dict__
            if self._shown not in values:
                values[self._shown] = redact(values[self._name])
            return str(values[self._shown])
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
