"""The data gate: every check of a split in a fixed order, those that were left out named with the reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from capnet.config import Validate
from capnet.contracts import Classes
from capnet.data.checks.drift import drift_counts, drift_rules, drift_table, read_reference
from capnet.data.checks.expectations import CheckedTable, check_table
from capnet.data.checks.files import OUTSIDE, open_image_files
from capnet.data.checks.rules import Check, Rule, class_rules, file_rules, likeness_rules, not_checked, table_rules
from capnet.data.checks.tables import add_dhashes, add_files, add_links, class_table, image_table
from capnet.data.images.image_files import require_read

# columns that may be empty
UNMEASURED = {
    "width_in_limits": ("width", "the table has no width: no picture was opened"),
    "height_in_limits": ("height", "the table has no height: no picture was opened"),
    "pictures_in_one_split": ("sha256", "the table has no sha256: no picture was opened"),
    "groups_in_one_split": ("group", "the data names no groups"),
}


def check_split(
    frame: pd.DataFrame, classes: Classes, root: Path, settings: Validate, links: str = "inside"
) -> tuple[list[Check], list[CheckedTable]]:
    """Every check of a split and of its images.

    Args:
        frame: split.parquet.
        classes: of the data.
        root: folder of the images.
        settings: the section ``validate``.
        links: ``data.links``; inside looks for symbolic links that lead out of ``root``.

    Returns:
        All checks in order, and the tables that great_expectations judged.

    Raises:
        ContractError: the reference for drift is damaged.
        CapnetError: the machine did not read some images.
    """
    table = image_table(frame)
    rules, left_out = [], []
    for rule in table_rules(len(classes), settings):
        unmeasured, why = UNMEASURED.get(rule.name, ("", ""))
        if rule.column not in table:
            left_out += not_checked([rule], "the data names no sequences")
        elif unmeasured and len(table) and table[unmeasured].isna().all():
            left_out += not_checked([rule], why)
        else:
            rules.append(rule)
    of_files, unchecked = _open_files(table, root, settings, links)
    left_out += unchecked
    judged = [check_table("pictures", table, [*rules, *of_files])]
    if settings.few_positives == "off":
        left_out += not_checked(class_rules("warning", settings.min_positives), "validate.few_positives is off")
    else:
        rules = class_rules(settings.few_positives, settings.min_positives)
        judged.append(check_table("classes", class_table(frame, classes), rules))
    reference = read_reference(settings.reference) if settings.reference and settings.drift.severity != "off" else None
    if reference is None:
        left_out += not_checked(drift_rules("warning"), _why_no_drift(settings))
    else:
        moved = drift_table(reference, drift_counts(frame, classes), settings.drift)
        judged.append(check_table("drift", moved, drift_rules(settings.drift.severity)))
    return [*(check for one in judged for check in one.checks), *left_out], judged


def _open_files(table: pd.DataFrame, root: Path, settings: Validate, links: str) -> tuple[list[Rule], list[Check]]:
    """Open the images as ``validate.images`` says and add what they are to ``table``; the rules for that, and the
    checks that are left out.
    """
    if settings.images == "off":
        rules = [*file_rules(settings), *likeness_rules("warning")]
        return [], not_checked(rules, "validate.images is off: no file was opened")
    if links == "inside":
        add_links(table, root)
    whole, dhashes = settings.images == "full", settings.near_duplicates != "off"
    inside = np.flatnonzero(table["path_leaves"] == 0)
    seen = [OUTSIDE] * len(table)
    read = open_image_files(table["path"].iloc[inside].tolist(), root, whole, dhashes, settings.processes)
    for row, one in zip(inside, read, strict=True):
        seen[row] = one
    require_read(seen, table["path"].tolist(), lambda row: str(root))
    add_files(table, seen, whole)
    if not dhashes:
        return file_rules(settings), not_checked(likeness_rules("warning"), "validate.near_duplicates is off")
    add_dhashes(table, seen)
    return [*file_rules(settings), *likeness_rules(settings.near_duplicates)], []


def _why_no_drift(settings: Validate) -> str:
    if settings.drift.severity == "off":
        return "validate.drift.severity is off"
    if settings.reference:
        return f"no file {settings.reference}: `capnet validate --save-reference` writes it"
    return "validate.reference names no file"
