"""The data gate: great_expectations on the split table. The only module that imports great_expectations."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from capnet.config import Validate
from capnet.contracts import SIDES, Classes, label_matrix
from capnet.data.near_duplicates import difference_hash, look_alikes
from capnet.data.pictures import map_pictures

if TYPE_CHECKING:
    import pandas as pd

OFFENDING = 20  # offending rows kept per check


@dataclass(frozen=True)
class Rule:
    """One expectation on a column, and how its failure is told: ``shown`` is the column whose value explains an offending row."""

    name: str
    column: str
    expectation: str  # unique, within (minimum, maximum) or one_of (values)
    says: str
    todo: str
    severity: str = "critical"  # critical or warning
    shown: str = ""
    minimum: int | None = None
    maximum: int | None = None
    values: tuple[object, ...] = ()


@dataclass(frozen=True)
class Check:
    """A rule's outcome: ``observed`` offending rows of ``rows``; ``offending`` holds the first of them."""

    name: str
    severity: str
    success: bool
    observed: int
    rows: int
    offending: list[dict[str, Any]]
    says: str
    todo: str


def check_split(frame: pd.DataFrame, classes: Classes, root: Path, settings: Validate) -> list[Check]:
    """Every check on ``frame`` (split.parquet) and on the pictures under ``root``, in a fixed order."""
    return [
        *run_rules(picture_table(frame, root, settings), picture_rules(len(classes), settings)),
        *run_rules(class_table(frame, classes), class_rules(settings)),
    ]


def picture_table(frame: pd.DataFrame, root: Path, settings: Validate) -> pd.DataFrame:
    """One row a picture with what the rules look at: label range, file present, number of sides that share it or its group, a look-alike elsewhere."""
    table = frame[["image_id", "path", "split", "width", "height", "sha256", "group"]].copy()
    both = [[*labels, *unknown] for labels, unknown in zip(frame["labels"], frame["unknown"], strict=True)]
    table["lowest_label"] = [min(row, default=0) for row in both]
    table["highest_label"] = [max(row, default=0) for row in both]
    table["known_and_unknown"] = [len(row) - len(set(row)) for row in both]
    table["present"] = [(root / path).is_file() for path in frame["path"]]
    table["sides_of_picture"] = _sides_sharing(table, "sha256")
    table["sides_of_group"] = _sides_sharing(table, "group")
    if settings.near_duplicates != "off":
        codes = np.array(map_pictures(difference_hash, [root / path for path in frame["path"]], "looking for near duplicates"), dtype=np.uint64)
        twin = look_alikes(codes, frame["split"].to_numpy(dtype=object), frame["sha256"].to_numpy(dtype=object))
        table["look_alikes"] = (twin >= 0).astype(int)
        table["look_alike"] = [frame["path"].iloc[row] if row >= 0 else None for row in twin]
    return table


def _sides_sharing(table: pd.DataFrame, column: str) -> pd.Series:
    """On how many sides of the split a row's value occurs, int [row]; 1 where it has none."""
    shared: pd.Series = table.groupby(column)["split"].transform("nunique").fillna(1).astype("int64")
    return shared


def picture_rules(n_classes: int, settings: Validate) -> list[Rule]:
    """What must hold of every picture."""
    again = "run `capnet ingest` and `capnet split` again"
    low, high = settings.min_side, settings.max_side
    size = "replace the picture, take its row out, or change validate.min_side and validate.max_side"
    rules = [
        Rule("unique_image_ids", "image_id", "unique", "an image id is there twice", again),
        Rule("unique_paths", "path", "unique", "a picture is listed twice", again),
        Rule("known_sides", "split", "one_of", "a row is on no side of the split", again, values=SIDES),
        Rule("labels_not_negative", "lowest_label", "within", "a label index is below 0", again, minimum=0),
        Rule("labels_in_classes", "highest_label", "within", "a label index is beyond the class list", again, maximum=n_classes - 1),
        Rule("labels_known_or_unknown", "known_and_unknown", "within", "a label is both known and unknown", again, maximum=0),
        Rule("width_in_limits", "width", "within", f"a picture's width is not within {low} to {high} pixels", size, minimum=low, maximum=high),
        Rule("height_in_limits", "height", "within", f"a picture's height is not within {low} to {high} pixels", size, minimum=low, maximum=high),
        Rule("pictures_present", "present", "one_of", "a picture file is gone", "put it back (dvc checkout), or ingest again", shown="path", values=(True,)),
        Rule(
            "pictures_on_one_side",
            "sides_of_picture",
            "within",
            "the same picture is on two sides of the split",
            "remove one of the copies, or put them into one group (column group of labels.csv)",
            shown="sha256",
            maximum=1,
        ),
        Rule(
            "groups_on_one_side",
            "sides_of_group",
            "within",
            "a group is on two sides of the split",
            "correct the split or group column of the data: pictures of one group belong on one side",
            shown="group",
            maximum=1,
        ),
    ]
    if settings.near_duplicates != "off":
        rules.append(
            Rule(
                "near_duplicates_on_one_side",
                "look_alikes",
                "within",
                "pictures that look the same are on two sides of the split",
                "look at them: remove a copy, or put them into one group; validate.near_duplicates sets how severe this is",
                severity=settings.near_duplicates,
                shown="look_alike",
                maximum=0,
            )
        )
    return rules


def class_table(frame: pd.DataFrame, classes: Classes) -> pd.DataFrame:
    """Known positives of every class on every side that has rows: columns class, split, positives."""
    import pandas as pd

    rows: list[dict[str, object]] = []
    inside = [[c for c in labels if 0 <= c < len(classes)] for labels in frame["labels"]]  # others are another rule's matter
    labels = label_matrix(inside, len(classes))
    for side in SIDES:
        on_side = (frame["split"] == side).to_numpy()
        if on_side.any():
            counts = labels[on_side].sum(axis=0)
            rows.extend({"class": name, "split": side, "positives": int(count)} for name, count in zip(classes.names, counts, strict=True))
    return pd.DataFrame(rows, columns=["class", "split", "positives"])


def class_rules(settings: Validate) -> list[Rule]:
    """What should hold of every class."""
    says = f"a class has fewer than {settings.min_positives} known positives on a side, so its figures there say little"
    todo = "add pictures of these classes, or read their figures with care; validate.min_positives sets the number"
    return [Rule("enough_positives", "positives", "within", says, todo, severity="warning", minimum=settings.min_positives)]


def run_rules(table: pd.DataFrame, rules: list[Rule]) -> list[Check]:
    """Let great_expectations judge ``table`` by ``rules``."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read when the library is imported
    import great_expectations as gx
    from great_expectations.data_context.types.base import DataContextConfig, InMemoryStoreBackendDefaults, ProgressBarsConfig
    from great_expectations.expectations.core.expect_column_values_to_be_between import ExpectColumnValuesToBeBetween
    from great_expectations.expectations.core.expect_column_values_to_be_in_set import ExpectColumnValuesToBeInSet
    from great_expectations.expectations.core.expect_column_values_to_be_unique import ExpectColumnValuesToBeUnique

    def expectation(number: int, rule: Rule) -> Any:
        common: dict[str, Any] = {"column": rule.column, "severity": rule.severity, "meta": {"rule": number}}
        if rule.expectation == "unique":
            return ExpectColumnValuesToBeUnique(**common)
        if rule.expectation == "one_of":
            return ExpectColumnValuesToBeInSet(value_set=list(rule.values), **common)
        return ExpectColumnValuesToBeBetween(min_value=rule.minimum, max_value=rule.maximum, **common)

    stores = InMemoryStoreBackendDefaults(init_temp_docs_sites=False)  # else every context leaves a folder in the system's temporary one
    settings = DataContextConfig(store_backend_defaults=stores, analytics_enabled=False, progress_bars=ProgressBarsConfig(globally=False))
    context = gx.get_context(mode="ephemeral", project_config=settings)
    table = table.assign(row=range(len(table)))
    asset = context.data_sources.add_pandas("capnet").add_dataframe_asset("table")
    batch = asset.add_batch_definition_whole_dataframe("whole").get_batch({"dataframe": table})
    suite = gx.ExpectationSuite("rules", expectations=[expectation(number, rule) for number, rule in enumerate(rules)])
    result = batch.validate(suite, result_format={"result_format": "COMPLETE", "unexpected_index_column_names": ["row"]})
    judged = {item.expectation_config.meta["rule"]: item for item in result.results if item.expectation_config and item.expectation_config.meta}
    return [_check(table, rule, judged[number]) for number, rule in enumerate(rules)]


def _check(table: pd.DataFrame, rule: Rule, result: Any) -> Check:
    found: Mapping[str, Any] = result.result
    if "element_count" not in found:
        raise RuntimeError(f"great_expectations could not judge {rule.name}: {result.exception_info}")
    rows = table.iloc[[int(item["row"]) for item in found.get("unexpected_index_list") or []]]
    shown = rule.shown or rule.column
    keys = [name for name in ("image_id", "path", "class", "split") if name in table.columns]
    listed = rows.sort_values([shown, *keys], kind="stable").head(OFFENDING)  # what shares a value stands together
    offending = [{**{key: _plain(row[key]) for key in keys}, "value": _plain(row[shown])} for _, row in listed.iterrows()]
    return Check(rule.name, rule.severity, bool(result.success), len(rows), len(table), offending, rule.says, rule.todo)


def _plain(value: Any) -> Any:
    """A NumPy scalar as Python's, a missing value as None."""
    plain = value.item() if hasattr(value, "item") else value
    return None if plain is None or plain != plain else plain
