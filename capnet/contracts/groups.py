"""Which images belong together: groups as the label tables name them, and what is drawn together because of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


def hashed_groups(groups: Iterable[object]) -> list[str]:
    """Groups as they travel: they may be patients, and only equality matters. "" where there is no group."""
    return [
        hashlib.sha256(value.encode()).hexdigest()[:16] if isinstance(value, str) and value else "" for value in groups
    ]


def unit_codes(groups: Iterable[object]) -> np.ndarray:
    """What stays together in a split and in a bootstrap draw.

    Args:
        groups: of each image; what is no text, or "", is no group.

    Returns:
        int64 [image], from 0 on: a number for each group, and one for each image without a group.
    """
    import numpy as np

    codes: dict[str | int, int] = {}
    keys = (group if isinstance(group, str) and group else row for row, group in enumerate(groups))
    return np.array([codes.setdefault(key, len(codes)) for key in keys], dtype=np.int64)


def sampling_units(rows: pd.DataFrame) -> np.ndarray:
    """What is drawn together, in splits, folds and bootstraps: a model that has seen one image of it would know the
    others, and together they say as much as one.

    Sequences and copies of a file do not join two groups, or the blank frame of all cameras would join them all: the
    data check names those that are in two splits.

    Args:
        rows: columns group, and where the table has them sequence and sha256.

    Returns:
        int64 [image], from 0 on: equal for images of one group. An image without a group joins the first image of its
        sequence that has one, or else the first copy of its file that has one; where none has one, the images of its
        sequence, or else its copies, are a group.
    """
    keys = _prefixed(rows, "group")
    if "sequence" in rows:  # ingest makes the sequence the group of an image without one
        keys = keys.mask(rows["group"] == _prefixed(rows, "sequence"))
    for name in ("sequence", "sha256"):
        if name in rows:
            values = _prefixed(rows, name)
            for other in (values.map(keys.dropna().groupby(values).first()), values):
                keys = keys.where(keys.notna(), other)
    return unit_codes(keys)


def _prefixed(rows: pd.DataFrame, name: str) -> pd.Series[Any]:
    """The texts of a column, each with the column's name in front; None for an empty cell."""
    return rows[name].map(lambda value: f"{name} {value}" if isinstance(value, str) and value else None).astype(object)
