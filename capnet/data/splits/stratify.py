"""Hold out rows so that every label keeps its share: iterative stratification for one held-out part, by groups."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.sparse import csc_array, csr_array


def stratified_holdout(
    labels: csr_array | np.ndarray, size: int, seed: int, groups: Sequence[int] | np.ndarray | None = None
) -> np.ndarray:
    """Choose ``size`` rows so that every label keeps its share in both parts.

    Iterative stratification (Sechidis, Tsoumakas and Vlahavas, ECML PKDD 2011, algorithm 1) with two subsets whose
    sizes are kept. The rarest label goes first and a lone positive stays where more of it is due, which is train for
    shares below one half.

    Args:
        labels: sparse or dense bool [row, class].
        size: number of rows to hold out.
        seed: of the order in which groups are visited.
        groups: int [row]; rows of one group stay together. Then fewer rows may be held out, never more, and none only
            where every group is larger than ``size``.

    Returns:
        bool [row], true where held out.
    """
    n = labels.shape[0]
    if size <= 0:
        return np.zeros(n, dtype=bool)
    numbers, units = pd.factorize(np.arange(n) if groups is None else np.asarray(groups))
    n_units = len(units)
    order = list(range(n_units))
    random.Random(seed).shuffle(order)
    rank = np.empty(n_units, dtype=np.int32)
    rank[order] = np.arange(n_units)
    unit_of_row = rank[numbers]  # units are numbered in the shuffled order
    rows_of_units = csr_array(
        (np.ones(n, dtype=np.int32), (unit_of_row, np.arange(n, dtype=np.int32))), shape=(n_units, n)
    )
    counts = rows_of_units @ csr_array(labels, dtype=np.int32)  # [unit, class]
    by_class = csc_array(counts)
    by_class.sort_indices()
    sizes = np.bincount(unit_of_row, minlength=n_units).tolist()
    totals = np.asarray(by_class.sum(axis=0)).tolist()
    # for the rows kept and the rows held out: how much of every label is due (times n, so that ties are exact), and for
    # how many rows there is room
    due = [[total * (n - size) for total in totals], [total * size for total in totals]]
    room = [n - size, size]
    waiting = np.array(totals)
    held_out, assigned = bytearray(n_units), bytearray(n_units)

    def assign(unit: int, label: int | None) -> None:
        fits_kept, fits_held_out = (left >= sizes[unit] for left in room)
        part = int(fits_held_out)
        if fits_kept and fits_held_out:
            wishes = [(due[part][label] if label is not None else 0, room[part]) for part in (0, 1)]
            part = int(wishes[1] > wishes[0])
        room[part] -= sizes[unit]
        start, end = counts.indptr[unit], counts.indptr[unit + 1]
        for c, k in zip(counts.indices[start:end].tolist(), counts.data[start:end].tolist(), strict=True):
            due[part][c] -= k * n
            waiting[c] -= k
        held_out[unit], assigned[unit] = part, 1

    while waiting.any():
        rarest = int(np.where(waiting > 0, waiting, np.iinfo(np.int64).max).argmin())
        for unit in by_class.indices[by_class.indptr[rarest] : by_class.indptr[rarest + 1]].tolist():
            if not assigned[unit]:
                assign(unit, rarest)
    for unit in range(n_units):
        if not assigned[unit]:
            assign(unit, None)
    fitting = [unit for unit in range(n_units) if sizes[unit] <= size]
    # few large groups: what would have fitted was assigned before the others turned out not to
    if fitting and not any(held_out):
        held_out[max(fitting, key=sizes.__getitem__)] = 1
    return np.frombuffer(held_out, dtype=np.uint8).astype(bool)[unit_of_row]


def stratified_folds(labels: np.ndarray, groups: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """The fold of every row; labels are spread evenly, groups kept together.

    Args:
        labels: bool [row, class].
        groups: int [row], equal for rows of one group.
        folds: their number.
        seed: of the draw.

    Returns:
        int64 [row].
    """
    fold = np.zeros(len(labels), dtype=np.int64)
    rest = np.arange(len(labels))
    for number in range(folds - 1, 0, -1):
        chosen = stratified_holdout(labels[rest], len(rest) // (number + 1), seed, groups[rest])
        fold[rest[chosen]] = number
        rest = rest[~chosen]
    return fold
