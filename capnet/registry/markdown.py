"""The pages of this folder in Markdown, and text of any origin as Markdown that stays what it is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from capnet.errors import shown
from capnet.evaluation.report.words import percent
from capnet.pages import page_templates

if TYPE_CHECKING:
    from jinja2 import Environment

LONGEST_TABLE = 300  # rows


def render(page: str, **content: object) -> str:
    """A page of this folder, such as model_card.md, with its content."""
    return _templates().get_template(page).render(content)


@cache
def _templates() -> Environment:
    """One for the whole process: it keeps the pages that it has compiled, which takes longer than to fill one in."""
    environment = page_templates(Path(__file__).parent, is_markdown=True)
    environment.filters |= {"code": code, "plain": plain, "percent": percent}
    return environment


def code(text: object) -> str:
    """Anything as code on one line, also in a cell of a table: a class name may hold Markdown and HTML."""
    line = shown(" ".join(str(text).split())[:200]).replace("`", "'").replace("|", "\\|")
    return f"`{line or ' '}`"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """A table's lines; cells must be escaped already."""
    return [f"| {' | '.join(map(str, cells))} |" for cells in (head, ["---"] * len(head), *rows)]


def plain(text: str) -> str:
    """Text that Markdown and HTML leave as it is, on one line."""
    line = shown(" ".join(text.split())).replace("&", "&amp;").replace("<", "&lt;")
    return "".join(f"\\{sign}" if sign in "\\`*_{}[]()#|~!" else sign for sign in line)


def class_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """A table with a row a class, cut after LONGEST_TABLE; the rest is in per_class.csv."""
    more = ["", f"And {len(rows) - LONGEST_TABLE} more in per_class.csv, an artifact of the run."]
    return table(head, rows[:LONGEST_TABLE]) + (more if len(rows) > LONGEST_TABLE else [])
