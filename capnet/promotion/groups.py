"""Which images hang together, as coarsely as any of the models' tables says: no candidate dissolves a group."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from capnet.contracts import unit_codes
from capnet.errors import counted
from capnet.promotion.non_inferiority import coverage
from capnet.promotion.policy import Policy
from capnet.promotion.verdict import COVERAGE, Rule


def common_groups(tables: Sequence[pd.DataFrame]) -> dict[str, str]:
    """The group of every image that has one.

    Args:
        tables: with columns sha256 and group, "" for none.

    Returns:
        A name by sha256; two images have the same one where a chain of groups, of whatever table, connects them.
    """
    rows = pd.concat([table[["sha256", "group"]] for table in tables])
    rows = rows[rows["group"] != ""]
    images, names = pd.factorize(rows["sha256"])
    groups, different = pd.factorize(rows["group"])
    size = len(names) + len(different)
    links = coo_array((np.ones(len(rows)), (images, len(names) + groups)), shape=(size, size))
    _, parts = connected_components(links, directed=False)
    return {name: str(part) for name, part in zip(names, parts, strict=False)}


def regrouped(table: pd.DataFrame, groups: dict[str, str]) -> pd.DataFrame:
    """The table with these groups, by sha256, in place of its own; "" where an image has none."""
    return table.assign(group=[groups.get(name, "") for name in table["sha256"]])


def fewer_units(compared: pd.DataFrame, tested: pd.DataFrame, policy: Policy) -> list[Rule]:
    """Is what the champion was tested on still as independent? A candidate that puts images together leaves few
    groups to draw, and then a fall cannot be distinguished from chance.

    Args:
        compared: test rows with the groups that both models' tables make together (columns sha256, group).
        tested: those of the champion, with its own groups.
        policy: its coverage is the least share of groups that must be left.

    Returns:
        The rule where fewer are left, none otherwise.
    """
    once = tested.drop_duplicates("sha256")
    own = dict(zip(once["sha256"], unit_codes(once["group"].tolist()), strict=True))
    again = compared[compared["sha256"].isin(own.keys())]
    before, now = {own[key] for key in again["sha256"]}, set(unit_codes(again["group"].tolist()))
    what = "groups that the champion's test pictures were in"
    rules = coverage(f"{COVERAGE} of groups", len(now), len(before), what, policy)
    return [rule for rule in rules if rule.outcome != "pass"]


def split_up(now: Sequence[pd.DataFrame], before: Sequence[pd.DataFrame], policy: Policy) -> list[str]:
    """Does a candidate take groups of the champion apart? Its own verdict is made as if it had not, but once it is the
    champion, later versions are measured with what its tables say.

    Args:
        now: the candidate's tables, with its own groups (columns sha256, group).
        before: those of the champion, with its own groups.
        policy: its coverage is the least share of groups that must stay together.

    Returns:
        A doubt in words where fewer do, none otherwise.
    """
    ours = pd.concat([table[["sha256", "group"]] for table in now]).drop_duplicates("sha256")
    own = regrouped(ours, common_groups(now))
    part = dict(zip(own["sha256"], unit_codes(own["group"].tolist()), strict=True))
    rows = pd.concat([table[["sha256", "group"]] for table in before])
    rows = rows[(rows["group"] != "") & rows["sha256"].isin(part.keys())]
    parts = rows["sha256"].map(part).groupby(rows["group"]).nunique()
    apart = int((parts > 1).sum())
    if not apart or 1 - apart / len(parts) >= policy.coverage:
        return []
    return [
        f"{apart} of {counted(len(parts), 'group')} of the champion are taken apart: once this version is the champion,"
        " what they hold counts as independent"
    ]
