"""Lists of labels as arrays and sparse matrices against plain Python."""

from __future__ import annotations

import numpy as np
import pandas as pd

from capnet.contracts import label_matrix
from capnet.data.annotations.label_lists import LabelLists, known_positives, label_csr


def random_lists(rows: int, classes: int, seed: int) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, classes, rng.integers(0, 5)).tolist() for _ in range(rows)]


def test_codes_become_ascending_indices_without_repetition() -> None:
    plain = random_lists(500, 40, 0)
    lists = LabelLists()
    for row in plain:
        lists.append(row)
    classes = np.random.default_rng(1).permutation(40)
    classes[::7] = -1
    assert lists.mapped(classes).tolist() == [sorted({int(classes[code]) for code in row} - {-1}) for row in plain]
    positions = np.arange(len(lists.codes))
    assert lists.rows_of(positions).tolist() == [number for number, row in enumerate(plain) for _ in row]


def test_no_rows_and_no_labels() -> None:
    assert LabelLists().mapped([]).tolist() == []
    lists = LabelLists()
    lists.append(())
    lists.append(())
    assert lists.mapped([]).tolist() == [[], []]
    assert label_csr([], 4).shape == (0, 4)
    assert label_csr([[], []], 4).nnz == 0


def test_sparse_labels_equal_the_dense_ones() -> None:
    known, unknown = random_lists(300, 20, 2), random_lists(300, 20, 3)
    assert (label_csr(known, 20).toarray() == label_matrix(known, 20)).all()
    frame = pd.DataFrame({"labels": pd.Series(known, dtype=object), "unknown": pd.Series(unknown, dtype=object)})
    both = label_matrix(known, 20) & label_matrix(unknown, 20)
    assert both.any()
    found = known_positives(frame, 20)
    assert (found.toarray() == (label_matrix(known, 20) & ~label_matrix(unknown, 20))).all()
    assert found.sum(axis=0).tolist() == found.toarray().sum(axis=0).tolist()
    assert found[[5, 5, 7]].toarray().tolist() == found.toarray()[[5, 5, 7]].tolist()
