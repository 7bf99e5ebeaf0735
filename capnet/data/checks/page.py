"""The findings as one HTML page that needs no network, no script and no other file."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from capnet.contracts import SPLITS, Classes, row_lengths
from capnet.data.checks.rules import Check
from capnet.data.checks.tables import listed_positives, positives_by_split
from capnet.errors import counted
from capnet.pages import page_templates

if TYPE_CHECKING:
    from jinja2 import Template

GLYPHS = {"passed": "\u2713", "warning": "\u26a0\ufe0e", "critical": "\u2717", "skipped": "\u2013"}
TITLES = {"path": "Picture", "class": "Class", "figure": "Figure", "split": "Split", "value": "Found"}
OPEN = 60  # classes shown before the rest is folded away


def page(checks: Sequence[Check], frame: pd.DataFrame, classes: Classes, documents: Sequence[str]) -> str:
    """Render the findings; equal findings give equal bytes.

    Args:
        checks: outcomes in order.
        frame: split.parquet.
        classes: the classes.
        documents: names of great_expectations' pages, to link to.

    Returns:
        The page as HTML.
    """
    shown = [_shown(check) for check in checks]
    failed = [check for state in ("critical", "warning") for check in shown if check["state"] == state]
    return _template().render(
        glyphs=GLYPHS,
        state=failed[0]["state"] if failed else "passed",
        verdict=verdict(checks),
        failed=failed,
        splits=_splits(frame, classes),
        checks=shown,
        classes=_classes(frame, classes),
        documents=documents,
    )


@cache
def _template() -> Template:
    """Compiled once a process."""
    return page_templates(Path(__file__).parent).get_template("validation.html")


def verdict(checks: Sequence[Check]) -> list[str]:
    """What a reader must know first, in sentences."""
    number = Counter(map(_state, checks))
    first = "The split may be used."
    if number["critical"]:
        first = f"Refused: {counted(number['critical'], 'critical check')} failed."
    passed, warnings = counted(number["passed"], "check"), counted(number["warning"], "warning")
    return [first, f"{passed} passed, {warnings}, {number['skipped']} not checked."]


def _state(check: Check) -> str:
    """A key of GLYPHS."""
    return {"passed": "passed", "not checked": "skipped", "failed": check.severity}[check.status]


def _shown(check: Check) -> dict[str, Any]:
    word = check.severity if check.status == "failed" else check.status
    # the value says nothing new where a rule is about the path or the split itself
    is_news = any(row["value"] not in (row.get("path"), row.get("split")) for row in check.offending)
    keys = [key for key in TITLES if check.offending and key in check.offending[0] and (key != "value" or is_news)]
    cells = [["" if row[key] is None else row[key] for key in keys] for row in check.offending]
    plain = {name: getattr(check, name) for name in ("name", "why", "todo", "observed", "rows", "size", "crowds")}
    sentences = {name: getattr(check, name)[:1].upper() + getattr(check, name)[1:] for name in ("says", "demands")}
    titles = [TITLES[key] for key in keys]
    return plain | sentences | {"state": _state(check), "word": word, "titles": titles, "cells": cells}


def _splits(frame: pd.DataFrame, classes: Classes) -> dict[str, Any]:
    per_row = listed_positives(frame, len(classes)).sum(axis=1)
    split, unsure = np.asarray(frame["split"], dtype=object), row_lengths(frame["unknown"])
    rows = []
    for name in SPLITS:
        in_split = split == name
        labels, groups = per_row[in_split], frame["group"][in_split].nunique()
        cells = [f"{len(labels):,}", f"{groups:,}" if groups else "-"]
        if len(labels):
            cells += [f"{labels.mean():.2f}", f"{int((labels == 0).sum()):,}", f"{int(unsure[in_split].sum()):,}"]
        else:
            cells += ["-"] * 3
        rows.append({"split": name, "cells": cells})
    return {"titles": ["Pictures", "Groups", "Labels a picture", "Without a label", "Unknown labels"], "rows": rows}


def _classes(frame: pd.DataFrame, classes: Classes) -> dict[str, Any]:
    counts = positives_by_split(frame, len(classes))
    first = next(iter(counts.values()), np.zeros(len(classes), dtype=int))
    most = math.log1p(max(1, first.max(initial=0)))
    rows = [
        {
            "name": classes.names[c],
            "width": f"{100 * math.log1p(first[c]) / most:.1f}",
            "counts": [int(of_split[c]) for of_split in counts.values()],
        }
        for c in np.argsort(-first, kind="stable")
    ]
    parts = [{"folded": "", "rows": rows[:OPEN]}]
    if len(rows) > OPEN:
        parts.append({"folded": f"{len(rows) - OPEN} more classes", "rows": rows[OPEN:]})
    return {"splits": list(counts), "parts": parts}
