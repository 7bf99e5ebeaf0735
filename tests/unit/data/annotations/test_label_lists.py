"""Lists of labels as arrays and sparse matrices against plain Python."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest

from capnet.contracts import flat, image_rows, label_matrix, parts
from capnet.data.annotations.label_lists import LabelLists, class_counts, known_positives, label_csr


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


@pytest.mark.parametrize("value", [2**32 + 1, 0.5, -(2**31) - 1])
def test_what_is_no_index_is_not_rounded_to_one(value: float) -> None:
    with pytest.raises(ValueError, match="no whole number of 32 bits"):
        flat([np.array([1, 2]), np.array([]), np.array([value])])


def test_no_rows_and_no_labels() -> None:
    assert LabelLists().mapped([]).tolist() == []
    lists = LabelLists()
    lists.append(())
    lists.append(())
    assert lists.mapped([]).tolist() == [[], []]
    assert label_csr([], 4).shape == (0, 4)
    assert label_csr([[], []], 4).nnz == 0
    lists.append([0])
    mapped = lists.mapped([2])
    assert [values.tolist() for values in flat(mapped[mapped.index < 0])] == [[], []], "a mask that keeps no row"


def test_sparse_labels_equal_the_dense_ones() -> None:
    known, unknown = random_lists(300, 20, 2), random_lists(300, 20, 3)
    assert (label_csr(known, 20).toarray() == label_matrix(known, 20)).all()
    frame = pd.DataFrame({"labels": pd.Series(known, dtype=object), "unknown": pd.Series(unknown, dtype=object)})
    both = label_matrix(known, 20) & label_matrix(unknown, 20)
    assert both.any()
    result = known_positives(frame, 20)
    assert (result.toarray() == (label_matrix(known, 20) & ~label_matrix(unknown, 20))).all()
    assert result.sum(axis=0).tolist() == result.toarray().sum(axis=0).tolist()
    assert result[[5, 5, 7]].toarray().tolist() == result.toarray()[[5, 5, 7]].tolist()


@pytest.mark.parametrize("part", [1, 7, 2**20])
def test_rows_in_parts_are_all_rows_in_order(part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_rows, "LABELS_AT_ONCE", part)
    plain = random_lists(200, 20, 4)
    slices = list(parts(np.array([len(row) for row in plain])))
    assert [row for each in slices for row in plain[each]] == plain
    assert all(sum(map(len, plain[each.start + 1 : each.stop])) <= part for each in slices)
    assert list(parts(np.empty(0, dtype=int))) == []
    lists = LabelLists()
    for row in plain:
        lists.append(row)
    mapped = lists.mapped(range(20))
    assert mapped.tolist() == [sorted({*row}) for row in plain]
    assert class_counts(mapped, 20).tolist() == label_matrix(plain, 20).sum(axis=0).tolist()
    frame = pd.DataFrame({"labels": mapped, "unknown": pd.Series(random_lists(200, 20, 5), dtype=object)})
    expected = label_matrix(plain, 20) & ~label_matrix(frame["unknown"], 20)
    assert (known_positives(frame, 20).toarray() == expected).all()


def test_three_million_labels_take_no_seconds() -> None:
    lists, row = LabelLists(), list(range(30_000))
    for _ in range(100):
        lists.append(row)
    begin = time.process_time()
    mapped = lists.mapped(row)
    arrays = pd.Series(list(mapped.to_numpy()), dtype=object)
    assert flat(arrays)[0].tolist() == flat(mapped)[0].tolist() == 100 * row
    assert time.process_time() - begin < 2  # np.unique and pyarrow's conversion took 7
