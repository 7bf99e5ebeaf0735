"""The validate stage: the split table and the images -> validation.json, a page, Data Docs; a critical failure stops
the run.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from capnet.config import Params
from capnet.contracts import SCHEMA, read_classes, read_split, replace_file, tree_hash, write_json
from capnet.data.sources.root import local_root
from capnet.errors import DataError, GateError, Problem

if TYPE_CHECKING:
    from capnet.data.checks.rules import Check

log = logging.getLogger(__name__)
SHOWN = 6  # offending rows named in a message; validation.json has more


def validate(params: Params, inputs: dict[str, Path], outputs: dict[str, Path]) -> dict[str, float]:
    """Check the split and write the findings as JSON, as a page and as Data Docs; warnings do not stop the run.

    Args:
        params: all settings.
        inputs: ``split`` and ``data``.
        outputs: ``validation``, the folder to write.

    Returns:
        Number of checks and of failed ones.

    Raises:
        ConfigError: great_expectations is not installed.
        DataError: there is nothing to train on or to measure with.
        GateError: a critical check failed; all is written before.
    """
    from capnet.data.checks.expectations import data_docs, need_library
    from capnet.data.checks.gate import check_split
    from capnet.data.checks.page import page

    need_library()  # before images are read
    split_md5 = tree_hash(inputs["split"])  # first: another split may take its place while images are read
    classes = read_classes(inputs["split"] / "classes.json")
    frame = read_split(inputs["split"] / "split.parquet")
    empty = [split for split in ("train", "test") if not (frame["split"] == split).any()]
    if empty:
        what = f"the split has no {' and no '.join(empty)} rows"
        raise DataError(what, str(inputs["split"] / "split.parquet"), "run `capnet split` again")
    root = inputs["data"]
    if params.validate_.images != "off":
        root = local_root(params.data, root, frame, strict=False)
    checks, judged = check_split(frame, classes, root, params.validate_, params.data.links)
    failed = [check for check in checks if not check.success]
    critical = [check for check in failed if check.severity == "critical"]
    content = {"schema": SCHEMA, "success": not critical, "checks": [check.content() for check in checks]}
    content["split_md5"] = split_md5
    write_json(outputs["validation"] / "validation.json", content)
    documents = data_docs(judged)
    for name, text in documents.items():
        replace_file(outputs["validation"] / "data_docs" / name, text)
    replace_file(outputs["validation"] / "validation.html", page(checks, frame, classes, list(documents)))
    for check in failed:
        if check.severity != "critical":
            log.warning("%s", failure(check))
    if critical:
        raise GateError(problems=[failure(check) for check in critical])
    return {"checks": float(len(checks)), "warnings": float(len(failed))}


def failure(check: Check) -> Problem:
    """A failed check in three parts, with the first offending rows, or with the largest groups of linked ones."""
    rows = []
    for row in check.offending[:SHOWN]:
        name = next(row[key] for key in ("path", "class", "figure") if key in row)
        value = "" if row["value"] in (name, row["split"]) else f": {row['value']}"
        rows.append(f"{name} ({row['split']}){value}")
    more = f"; and {check.observed - len(rows)} more" if check.observed > len(rows) else ""
    return Problem(f"{check.name}: {check.says} ({check.size})", check.crowds or "; ".join(rows) + more, check.todo)
