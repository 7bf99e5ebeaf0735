"""Labels of many rows in little memory: built row by row, kept as Arrow lists, counted as a sparse matrix."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from capnet.contracts import flat

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from scipy.sparse import csr_array


@dataclass
class LabelLists:
    """One list of codes a row, end to end: 4 bytes a label and 8 a row, whatever the number of classes."""

    codes: array[int] = field(default_factory=lambda: array("i"))
    ends: array[int] = field(default_factory=lambda: array("q", [0]))

    def append(self, row: Iterable[int]) -> None:
        self.codes.extend(row)
        self.ends.append(len(self.codes))

    def __len__(self) -> int:
        return len(self.ends) - 1

    def rows_of(self, positions: np.ndarray) -> np.ndarray:
        """The rows to which some codes belong.

        Args:
            positions: int [position], of codes in ``codes``.

        Returns:
            int64 [position].
        """
        import numpy as np

        return np.searchsorted(np.frombuffer(self.ends, dtype=np.int64), positions, side="right") - 1

    def mapped(self, classes: Sequence[int] | np.ndarray) -> pd.Series:
        """The rows as ascending class indices without repetition, code k standing for ``classes[k]`` (below 0: left
        away).
        """
        import numpy as np
        import pandas as pd
        import pyarrow as pa

        found = np.asarray(classes, dtype=np.int64)[np.asarray(self.codes)]
        keys = np.repeat(np.arange(len(self)), np.diff(self.ends)) << 16 | np.maximum(found, 0)
        keys = np.unique(keys[found >= 0])  # each label of each row once
        ends = np.concatenate([[0], np.cumsum(np.bincount(keys >> 16, minlength=len(self)))])
        lists = pa.ListArray.from_arrays(pa.array(ends.astype(np.int32)), pa.array((keys & 0xFFFF).astype(np.int16)))
        return pd.Series(lists, dtype=pd.ArrowDtype(lists.type))


def label_csr(lists: Sequence[Sequence[int]] | pd.Series, n_classes: int) -> csr_array:
    """Sparse bool [row, class] from lists of class indices: a million rows of a thousand classes fit in megabytes."""
    import numpy as np
    from scipy.sparse import csr_array

    columns, lengths = flat(lists)
    ends = np.concatenate([[0], np.cumsum(lengths)])
    matrix = csr_array((np.ones(len(columns), dtype=bool), columns, ends), shape=(len(lists), n_classes))
    matrix.sum_duplicates()
    return matrix


def known_positives(frame: pd.DataFrame, n_classes: int) -> csr_array:
    """Labels that are there for certain, sparse bool [row, class]: an unknown label is none, even where a reader wrote
    both.
    """
    return label_csr(frame["labels"], n_classes) > label_csr(frame["unknown"], n_classes)
