"""Errors that a user can act on: what is wrong, where, and what to do; collected, not one at a time."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

SHOWN = 20  # problems printed in full; the rest are counted
LONGEST = 4000  # letters of one part of a message
STEERING = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True)
class Problem:
    """One mistake: ``what`` is wrong (with the value), ``where`` (file, row, class), what ``todo``."""

    what: str
    where: str = ""
    todo: str = ""

    def __str__(self) -> str:
        lines = [_shown(self.what)]
        if self.where:
            lines.append(f"  where: {_shown(self.where)}")
        if self.todo:
            lines.append(f"  to do: {_shown(self.todo)}")
        return "\n".join(lines)


def _shown(text: str) -> str:
    """Part of a message, which may quote a stranger's file: no longer than a page, nothing that steers a terminal."""
    if len(text) > LONGEST:
        text = f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"
    return STEERING.sub(lambda found: ascii(found[0])[1:-1], text)


class CapnetError(Exception):
    """Base of all errors that are the input's fault; ``exit_code`` is the command's exit status."""

    exit_code = 1
    title = "error"

    def __init__(self, what: str = "", where: str = "", todo: str = "", *, problems: Sequence[Problem] = ()) -> None:
        self.problems: list[Problem] = [Problem(what, where, todo)] if what else []
        self.problems.extend(problems)
        super().__init__(str(self))

    def __str__(self) -> str:
        shown = [str(problem) for problem in self.problems[:SHOWN]]
        if len(self.problems) > SHOWN:
            shown.append(f"... and {len(self.problems) - SHOWN} more")
        return "\n".join(shown)


class ConfigError(CapnetError):
    """A setting is unknown or out of range (exit code 2)."""

    exit_code = 2
    title = "settings"


class DataError(CapnetError):
    """The user's images, labels or weights cannot be read or used (exit code 3)."""

    exit_code = 3
    title = "data"


class ContractError(CapnetError):
    """A file between two stages is missing, of another version, or made for other classes (exit code 4)."""

    exit_code = 4
    title = "contract"


class GateError(CapnetError):
    """A gate refused: data validation or promotion (exit code 5)."""

    exit_code = 5
    title = "gate"
