"""Checks of the rows of a manifest or a split, and their lists of labels as arrays. Ingest refuses the same mistakes in
annotations; a table that was edited afterwards could lead out of the data folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from capnet.errors import ContractError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

LABELS_AT_ONCE = 2**20  # labels of the rows that are computed with at once
HEXADECIMAL = re.compile(r"[0-9a-fA-F]*")


def check_rows(frame: pd.DataFrame) -> None:
    """Raises ValueError where a path leaves the data folder, an image or a class of an image is there twice, a size is
    below 1, or a hash is not hexadecimal.

    Args:
        frame: columns image_id, path, labels, unknown, width, height and sha256.
    """
    import numpy as np

    from capnet.section import path_fault

    for row, path in enumerate(frame["path"], start=1):
        if fault := path_fault(path):
            raise ValueError(f"row {row}: {fault}")
    for name in ("image_id", "path"):
        repeated = frame[name].duplicated()
        if repeated.any():
            raise ValueError(f"column {name} has {frame[name][repeated].iloc[0]!r} twice")
    for name in ("width", "height"):
        if (frame[name].dropna() < 1).any():
            raise ValueError(f"column {name} has the value {frame[name].min():.0f}: pixels are counted from 1")
    for value in frame["sha256"]:
        if isinstance(value, str) and not HEXADECIMAL.fullmatch(value):
            raise ValueError(f"column sha256 has {value[:80]!r}, which is no hash")
    for name in ("labels", "unknown"):
        for part in parts(row_lengths(frame[name])):
            values, lengths = flat(frame[name].iloc[part])
            pairs = np.sort(np.repeat(np.arange(len(lengths)), lengths) << 16 | values)
            if (pairs[1:] == pairs[:-1]).any():
                raise ValueError(f"column {name} has a class twice in one row")


def flat(lists: Sequence[Sequence[int]] | pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """All values of a column of lists end to end, int32 [entry], and how many each row has, int64 [row]."""
    import numpy as np
    import pandas as pd
    import pyarrow as pa

    if not isinstance(getattr(lists, "dtype", None), pd.ArrowDtype):  # pyarrow converts arrays a value at a time
        rows = [np.asarray(row) for row in lists]
        whole = np.concatenate([np.empty(0, np.int32), *filter(len, rows)])
        values = whole.astype(np.int32, copy=False)
        if values is not whole and not np.array_equal(values, whole):
            raise ValueError("a label that is no whole number of 32 bits")
        return values, np.fromiter(map(len, rows), np.int64, len(rows))
    array = pa.array(lists, type=pa.list_(pa.int32()))
    array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    lengths = array.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
    return array.flatten().to_numpy(zero_copy_only=False), lengths


def parts(lengths: np.ndarray) -> Iterator[slice]:
    """Slices of all rows in order, each with about LABELS_AT_ONCE labels or one row.

    Args:
        lengths: int [row], labels of each.
    """
    import numpy as np

    starts = np.unique(np.cumsum(lengths) // LABELS_AT_ONCE, return_index=True)[1].tolist()
    return map(slice, starts, [*starts[1:], len(lengths)])


def row_lengths(lists: Sequence[Sequence[int]] | pd.Series) -> np.ndarray:
    """How many values each row of a column of lists has, int64 [row], without a copy of plain ones."""
    import numpy as np
    import pandas as pd

    if isinstance(getattr(lists, "dtype", None), pd.ArrowDtype):
        return flat(lists)[1]
    return np.fromiter(map(len, lists), np.int64, len(lists))


def label_matrix(lists: Sequence[Sequence[int]] | pd.Series, n_classes: int) -> np.ndarray:
    """Labels as a matrix.

    Args:
        lists: class indices of each row (column ``labels`` or ``unknown``).
        n_classes: number of classes.

    Returns:
        bool [row, class].

    Raises:
        ContractError: an index stands for no class.
    """
    import numpy as np

    matrix = np.zeros((len(lists), n_classes), dtype=bool)
    columns, lengths = flat(lists)
    if len(columns):
        if columns.min() < 0 or columns.max() >= n_classes:
            what = f"class indices from {columns.min()} to {columns.max()}, and there are {n_classes} classes"
            todo = "run `capnet ingest` and `capnet split` again"
            raise ContractError(what, "labels of the split or the manifest", todo)
        matrix[np.repeat(np.arange(len(lists)), lengths), columns] = True
    return matrix


def known_labels(rows: pd.DataFrame, n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels and whether they are known, each bool [row, class]; an unknown label is no label.

    Args:
        rows: with columns ``labels`` and ``unknown``.
        n_classes: number of classes.

    Raises:
        ContractError: an index stands for no class.
    """
    known = ~label_matrix(rows["unknown"], n_classes)
    return label_matrix(rows["labels"], n_classes) & known, known
