"""Groups of rows that a check links, each row to another one: whatever a chain of links joins is one group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

LARGEST = 5  # groups named


@dataclass(frozen=True)
class Groups:
    """The group of every row, int [row]; how many groups there are; ``largest``: the first path of the largest ones and
    their images, which include those that rows are linked to.
    """

    of_row: np.ndarray
    count: int
    largest: list[dict[str, Any]]


def linked_groups(paths: np.ndarray, partners: np.ndarray) -> Groups:
    """Group rows that are linked.

    Args:
        paths: of the rows, each once, [row].
        partners: path that each row is linked to, [row].

    Returns:
        Groups, the largest first, those of one size in the order of their first paths.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    rows = len(paths)
    names, ends = np.unique(np.concatenate([paths, partners]), return_inverse=True)
    links = coo_array((np.ones(rows, dtype=np.int8), (ends[:rows], ends[rows:])), shape=(len(names), len(names)))
    count, group = connected_components(links, directed=False)
    _, first, size = np.unique(group, return_index=True, return_counts=True)
    order = np.lexsort((first, -size))[:LARGEST]
    largest = [{"path": str(names[first[one]]), "pictures": int(size[one])} for one in order]
    return Groups(group[ends[:rows]], int(count), largest)


def some_of_each(group: np.ndarray, each: int, most: int) -> np.ndarray:
    """Choose rows so that a large group does not hide the others.

    Args:
        group: of every row, int [row].
        each: rows that every group may have before any has more.
        most: rows to choose.

    Returns:
        Positions of the rows in ascending order.
    """
    rank = pd.Series(group).groupby(group).cumcount().to_numpy()
    return np.sort(np.argsort(rank >= each, kind="stable")[:most])
