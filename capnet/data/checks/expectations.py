"""great_expectations judges tables by rules and documents what it found. The only module that imports
great_expectations.
"""

from __future__ import annotations

import html
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from capnet.data.checks.groups import linked_groups, some_of_each
from capnet.data.checks.rules import Check, Rule
from capnet.errors import ConfigError
from capnet.progress import waiting

OFFENDING = 20  # offending rows kept per check
OF_A_GROUP = 4  # of these, where there are more groups
KEYS = ("image_id", "path", "class", "figure", "split")  # columns that say which row it is
RANDOM = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
TIME = re.compile(r"\?d=\d{8}T\d{6}\.\d+Z|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z")


def need_library() -> None:
    """Import great_expectations, without its analytics.

    Raises:
        ConfigError: it is not installed.
    """
    os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read when the library is imported
    if os.path.expanduser("~") == "~":
        os.environ["HOME"] = "/"  # it cannot be imported without a home
    try:
        with waiting("loading great_expectations"):
            import great_expectations  # noqa: F401
    except ModuleNotFoundError as error:
        raise ConfigError(f"{error.name} is not installed", "capnet validate", "pip install 'capnet[data]'") from None


@dataclass(frozen=True)
class CheckedTable:
    """The checks of one table in the order of its rules, and great_expectations' own account of them, ready for its
    documents.
    """

    table: str
    checks: list[Check]
    account: Any


def check_table(name: str, table: pd.DataFrame, rules: Sequence[Rule]) -> CheckedTable:
    """Let great_expectations judge a table.

    Args:
        name: of the table in the documents.
        table: with the columns that the rules name, the only ones it sees.
        rules: in the order of the checks.

    Raises:
        RuntimeError: it could not judge a rule, or its count is not the table's: that is never a pass.
    """
    need_library()
    import great_expectations as gx
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        InMemoryStoreBackendDefaults,
        ProgressBarsConfig,
    )
    from great_expectations.expectations.core.expect_column_values_to_be_between import ExpectColumnValuesToBeBetween
    from great_expectations.expectations.core.expect_column_values_to_be_unique import ExpectColumnValuesToBeUnique

    def expectation(number: int, rule: Rule) -> Any:
        common: dict[str, Any] = {"column": rule.column, "severity": rule.severity, "meta": {"rule": number}}
        if rule.unique:
            return ExpectColumnValuesToBeUnique(**common)
        return ExpectColumnValuesToBeBetween(min_value=rule.minimum, max_value=rule.maximum, **common)

    # else every context leaves a folder in the system's temporary one
    stores = InMemoryStoreBackendDefaults(init_temp_docs_sites=False)
    bars = ProgressBarsConfig(globally=False)
    settings = DataContextConfig(store_backend_defaults=stores, analytics_enabled=False, progress_bars=bars)
    context = gx.get_context(mode="ephemeral", project_config=settings)
    asset = context.data_sources.add_pandas("capnet").add_dataframe_asset(name)
    # it hashes all that it is given: a million strings take a second
    seen = table[sorted({rule.column for rule in rules})]
    batch = asset.add_batch_definition_whole_dataframe("whole").get_batch({"dataframe": seen})
    suite = gx.ExpectationSuite(name, expectations=[expectation(number, rule) for number, rule in enumerate(rules)])
    # not COMPLETE: naming every offending row takes a minute where all of a million offend
    result = batch.validate(suite, result_format={"result_format": "SUMMARY", "partial_unexpected_count": OFFENDING})
    judged = {
        item.expectation_config.meta["rule"]: item
        for item in result.results
        if item.expectation_config and item.expectation_config.meta
    }
    return CheckedTable(name, [_check(table, rule, judged[number]) for number, rule in enumerate(rules)], result)


def _check(table: pd.DataFrame, rule: Rule, item: Any) -> Check:
    outcome: Mapping[str, Any] = item.result
    if "unexpected_count" not in outcome:
        raise RuntimeError(f"great_expectations could not judge {rule.name}: {item.exception_info}")
    rows = table[_offends(table[rule.column], rule)]
    if len(rows) != outcome["unexpected_count"] or bool(item.success) != rows.empty:
        counts = f"counts {outcome['unexpected_count']} offending rows, the table has {len(rows)}"
        raise RuntimeError(f"{rule.name}: great_expectations {counts}")
    shown = rule.shown or rule.column
    keys = [name for name in KEYS if name in table.columns]
    rows = rows.sort_values([shown, *keys], kind="stable")  # what shares a value stands together
    groups = linked_groups(rows["path"].to_numpy(), rows[shown].to_numpy()) if rule.linked and len(rows) else None
    listed = rows.head(OFFENDING) if groups is None else rows.iloc[some_of_each(groups.of_row, OF_A_GROUP, OFFENDING)]
    offending = [
        {**{key: _plain(row[key]) for key in keys}, "value": _plain(row[shown])} for _, row in listed.iterrows()
    ]
    return Check(
        name=rule.name,
        severity=rule.severity,
        success=bool(item.success),
        observed=len(rows),
        rows=int(table[rule.column].notna().sum()),
        offending=offending,
        demands=rule.demands,
        says=rule.says,
        todo=rule.todo,
        groups=groups.count if groups else 0,
        largest=groups.largest if groups else [],
    )


def _offends(values: pd.Series, rule: Rule) -> np.ndarray:
    """bool [row]: the rows to name; great_expectations counts the same."""
    if rule.unique:
        return values.duplicated(keep=False).to_numpy()
    numbers = values.to_numpy()
    low, high = (-np.inf if rule.minimum is None else rule.minimum), (np.inf if rule.maximum is None else rule.maximum)
    return (numbers < low) | (numbers > high)


def _plain(value: Any) -> Any:
    """A NumPy scalar as Python's, a missing value as None."""
    plain = value.item() if hasattr(value, "item") else value
    return None if pd.isna(plain) else plain


def data_docs(judged: Sequence[CheckedTable]) -> dict[str, str]:
    """great_expectations' Data Docs, one page a table by file name: its own renderer, without the times and random ids
    that it puts in.
    """
    from great_expectations.render.renderer.page_renderer import ValidationResultsPageRenderer
    from great_expectations.render.view.view import DefaultJinjaPageView

    view: Any = DefaultJinjaPageView()
    pages = {}
    for one in judged:
        one.account.meta = {"great_expectations_version": one.account.meta.get("great_expectations_version", "")}
        for item in one.account.results:
            item.result = _escaped(item.result)
        content = ValidationResultsPageRenderer(run_info_at_end=True).render(one.account)
        page: str = view.render(content, show_how_to_buttons=False)
        for number, random in enumerate(dict.fromkeys(RANDOM.findall(page))):
            page = page.replace(random, f"id-{number}")
        pages[f"{one.table}.html"] = TIME.sub("", page)
    return pages


def _escaped(value: Any) -> Any:
    """Every text in a result as HTML text: the renderer puts offending values into its pages as they are, and a file
    name could be a script.
    """
    if isinstance(value, str):
        return html.escape(value)
    if isinstance(value, Mapping):
        return {key: _escaped(item) for key, item in value.items()}
    return [_escaped(item) for item in value] if isinstance(value, list | tuple) else value
