"""Templates of pages and cards, in the folder of the code that fills them in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment


def page_templates(folder: Path, is_markdown: bool = False) -> Environment:
    """Jinja's environment for the templates of a folder; keep it, because it keeps what it has compiled.

    Args:
        folder: has the templates.
        is_markdown: nothing is escaped and the last line stays whole; else pages are HTML, and all that they show is
            escaped.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=not is_markdown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=is_markdown,
    )
