"""The data gate: every check of a split in a fixed order, those that were left out named with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from capnet.config import Validate
from capnet.contracts import Classes
from capnet.data.check_drift import compare, drift_rules, measure, read_reference
from capnet.data.check_files import see_all
from capnet.data.check_rules import Check, Rule, class_rules, file_rules, likeness_rules, not_checked, table_rules
from capnet.data.check_tables import add_files, add_looks, class_table, picture_table
from capnet.data.checks import Judged, judge

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Findings:
    """All checks in order, and the tables that great_expectations judged."""

    checks: list[Check]
    judged: list[Judged]


def check_split(frame: pd.DataFrame, classes: Classes, root: Path, settings: Validate) -> Findings:
    """Every check on ``frame`` (split.parquet) and on the pictures under ``root``."""
    table = picture_table(frame)
    rules = table_rules(len(classes), settings)
    left_out: list[Check] = []
    looks = settings.near_duplicates != "off"
    if settings.pictures == "off":
        left_out += _left_out(file_rules(settings), "validate.pictures is off: no file was opened")
        left_out += _left_out(likeness_rules("warning"), "validate.pictures is off: no file was opened")
    else:
        whole = settings.pictures == "full"
        seen = see_all(table["path"].tolist(), root, whole, looks, settings.processes)
        add_files(table, seen, whole)
        rules += file_rules(settings)
        if looks:
            add_looks(table, seen)
            rules += likeness_rules(settings.near_duplicates)
        else:
            left_out += _left_out(likeness_rules("warning"), "validate.near_duplicates is off")
    judged = [judge("pictures", table, rules)]
    if settings.few_positives == "off":
        left_out += _left_out(class_rules(settings.model_copy(update={"few_positives": "warning"})), "validate.few_positives is off")
    else:
        judged.append(judge("classes", class_table(frame, classes), class_rules(settings)))
    reference = read_reference(Path(settings.reference)) if settings.reference and settings.drift.severity != "off" else None
    if reference is None:
        absent = f"no file {settings.reference}: `capnet validate --save-reference` writes it" if settings.reference else "validate.reference names no file"
        left_out += _left_out(drift_rules("warning"), "validate.drift.severity is off" if settings.drift.severity == "off" else absent)
    else:
        judged.append(judge("drift", compare(reference, measure(frame, classes), settings.drift), drift_rules(settings.drift.severity)))
    return Findings([*(check for one in judged for check in one.checks), *left_out], judged)


def _left_out(rules: Sequence[Rule], why: str) -> list[Check]:
    return [not_checked(rule.name, rule.demands, why, rule.severity) for rule in rules]
