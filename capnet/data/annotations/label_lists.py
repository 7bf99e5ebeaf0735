"""Labels of many rows in little memory: built row by row, kept as Arrow lists, counted as a sparse matrix."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from capnet.contracts import flat, parts, row_lengths

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
        """The row that each of some codes belongs to.

        Args:
            positions: int [position], of codes in ``codes``.

        Returns:
            int64 [position].
        """
        import numpy as np

        return np.searchsorted(np.frombuffer(self.ends, dtype=np.int64), positions, side="right") - 1

    def mapped(self, classes: Sequence[int] | np.ndarray) -> pd.Series:
        """The rows as ascending class indices without repetition, code k standing for ``classes[k]``; codes of
        classes below 0 are left out.
        """
        import numpy as np
        import pandas as pd
        import pyarrow as pa

        codes, ends, meanings = np.asarray(self.codes), np.asarray(self.ends), np.asarray(classes, dtype=np.int64)
        values, lengths = [np.empty(0, np.int16)], [np.empty(0, np.int64)]
        for part in parts(np.diff(ends)):
            indices = meanings[codes[ends[part.start] : ends[part.stop]]]
            keys = np.repeat(np.arange(part.stop - part.start), np.diff(ends[part.start : part.stop + 1])) << 16
            keys = np.sort((keys | np.maximum(indices, 0))[indices >= 0])
            keys = keys[np.diff(keys, prepend=-1) > 0]  # each label of each row once; np.unique takes 70 times as long
            values.append((keys & 0xFFFF).astype(np.int16))
            lengths.append(np.bincount(keys >> 16, minlength=part.stop - part.start))
        starts = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int32)
        lists = pa.ListArray.from_arrays(pa.array(starts), pa.array(np.concatenate(values)))
        return pd.Series(lists, dtype=pd.ArrowDtype(lists.type))


def label_csr(lists: Sequence[Sequence[int]] | pd.Series, n_classes: int) -> csr_array:
    """Sparse bool [row, class] from lists of class indices: a million rows of a thousand classes fit in megabytes."""
    import numpy as np
    from scipy.sparse import csr_array

    columns, lengths = flat(lists)
    ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)  # int64 would make all indices so
    matrix = csr_array((np.ones(len(columns), dtype=bool), columns, ends), shape=(len(lists), n_classes))
    matrix.sum_duplicates()
    return matrix


def class_counts(lists: pd.Series, n_classes: int) -> np.ndarray:
    """How many rows have each class, int [class]; see label_csr."""
    import numpy as np

    counts = np.zeros(n_classes, dtype=np.int64)
    for part in parts(row_lengths(lists)):
        counts += label_csr(lists.iloc[part], n_classes).sum(axis=0)
    return counts


def known_positives(frame: pd.DataFrame, n_classes: int) -> csr_array:
    """Labels that are there for certain, sparse bool [row, class]: an unknown label is none, even where a reader wrote
    both.
    """
    from scipy.sparse import csr_array, vstack

    known = [csr_array((0, n_classes), dtype=bool)]
    for part in parts(row_lengths(frame["labels"]) + row_lengths(frame["unknown"])):
        labels, unknown = (label_csr(frame[name].iloc[part], n_classes) for name in ("labels", "unknown"))
        known.append(labels > unknown)
    return vstack(known, format="csr")
