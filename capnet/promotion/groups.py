"""Which pictures hang together, as coarsely as any of the models' tables says: no candidate dissolves a group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def common_groups(tables: Sequence[pd.DataFrame]) -> dict[str, str]:
    """The group of every picture that has one.

    Args:
        tables: with columns sha256 and group, "" for none.

    Returns:
        A name by sha256; two pictures have the same one where a chain of groups, of whatever table, leads from one to
        the other.
    """
    import numpy as np
    import pandas as pd
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    rows = pd.concat([table[["sha256", "group"]] for table in tables])
    rows = rows[rows["group"] != ""]
    pictures, names = pd.factorize(rows["sha256"])
    groups, different = pd.factorize(rows["group"])
    size = len(names) + len(different)
    links = coo_array((np.ones(len(rows)), (pictures, len(names) + groups)), shape=(size, size))
    _, parts = connected_components(links, directed=False)
    return {name: str(part) for name, part in zip(names, parts, strict=False)}


def regrouped(table: pd.DataFrame, groups: dict[str, str]) -> pd.DataFrame:
    """The table with these groups, by sha256, in place of its own; "" where an image has none."""
    return table.assign(group=[groups.get(name, "") for name in table["sha256"]])
