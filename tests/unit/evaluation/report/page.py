"""A report read as a browser would."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from unit.evaluation.made_run import MadeRun

from capnet.config import Report
from capnet.evaluation.report.render import render

VOID = {"meta", "br", "img", "link", "input", "hr", "wbr"}
SVG_VOID = {"path", "line", "rect", "circle"}


class Page(HTMLParser):
    """Tags in order, tables as rows of texts by the id of their section, and every complaint about nesting."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.problems: list[str] = []
        self.texts: list[str] = []
        self.tables: dict[str, list[list[list[str]]]] = {}
        self.section = ""
        self.headings: list[int] = []
        self.feed(html)
        self.close()
        if self.open:
            self.problems.append(f"not closed: {self.open}")

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        self.tags.append((tag, values))
        if tag == "section":
            self.section = values.get("id") or values.get("aria-labelledby") or ""
        if tag == "table":
            self.tables.setdefault(self.section, []).append([])
        if tag == "tr":
            self.tables[self.section][-1].append([])
        if tag in ("td", "th"):
            self.tables[self.section][-1][-1].append("")
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID | SVG_VOID:
            self.problems.append(f"{tag} closes itself")

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.problems.append(f"{tag} closes out of order")

    def handle_data(self, data: str) -> None:
        if {"style", "script"} & set(self.open):
            return
        self.texts.append(data)
        if ("td" in self.open or "th" in self.open) and "title" not in self.open:
            self.tables[self.section][-1][-1][-1] += data

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def rows(self, section: str, table: int = 0) -> dict[str, list[str]]:
        """Body rows by the text of their first cell."""
        return {row[0].strip(): [cell.strip() for cell in row] for row in self.tables[section][table][1:]}


def html_of(run: MadeRun, **settings: object) -> str:
    """The report of a made-up run."""
    return render(run.evaluation, run.model, run.split, run.data, Report.model_validate(settings))


def percent(value: float) -> str:
    return f"{100 * value:.1f}"
