"""Text of any origin as Markdown that stays what it is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

LONGEST_TABLE = 300  # rows


def code(text: str) -> str:
    """Any text as code on one line, also in a cell of a table: a class name may hold Markdown and HTML."""
    line = " ".join(text.split())[:200].replace("`", "'").replace("|", "\\|")
    return f"`{line or ' '}`"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """A table's lines; cells must be escaped already."""
    return [f"| {' | '.join(map(str, cells))} |" for cells in (head, ["---"] * len(head), *rows)]


def plain(text: str) -> str:
    """Text that Markdown and HTML leave as it is, on one line."""
    line = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return "".join(f"\\{sign}" if sign in "\\`*_{}[]()#|~!" else sign for sign in line)


def class_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """A table with a row a class, cut after LONGEST_TABLE; the rest is in per_class.csv."""
    more = ["", f"And {len(rows) - LONGEST_TABLE} more in per_class.csv, an artifact of the run."]
    return table(head, rows[:LONGEST_TABLE]) + (more if len(rows) > LONGEST_TABLE else [])
