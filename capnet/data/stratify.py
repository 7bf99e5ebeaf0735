"""Hold out rows so that every label keeps its share: iterative stratification for one held-out part, by groups."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import numpy as np


def stratified_holdout(labels: np.ndarray, wanted: int, seed: int, groups: Sequence[int] | np.ndarray | None = None) -> np.ndarray:
    """Choose ``wanted`` rows so that every label keeps its share on both sides; bool [row], true where held out.

    Iterative stratification (Sechidis, Tsoumakas and Vlahavas, ECML PKDD 2011, algorithm 1) with two subsets whose sizes
    are kept, so exactly ``wanted`` rows are held out. ``labels`` is bool [row, class]. Rows with equal ``groups`` (int
    [row]) stay together; then the number may fall short of ``wanted``, never exceed it unless groups are larger than a side.
    The rarest label goes first and a lone positive stays where more of it is due, which is train for shares below one half.
    """
    n = len(labels)
    held_out = np.zeros(n, dtype=bool)
    if wanted <= 0:
        return held_out
    members: dict[int, list[int]] = {}
    for row, group in enumerate(range(n) if groups is None else groups):
        members.setdefault(int(group), []).append(row)
    units = list(members.values())
    random.Random(seed).shuffle(units)
    counts = [Counter(labels[unit].nonzero()[1].tolist()) for unit in units]
    totals = labels.sum(axis=0).astype(np.int64)
    due = [totals * (n - wanted), totals * wanted]  # times n, so that ties are exact
    room = [n - wanted, wanted]
    holders: list[list[int]] = [[] for _ in totals]
    for number, count in enumerate(counts):
        for c in count:
            holders[c].append(number)
    waiting = totals.copy()
    placed = np.zeros(len(units), dtype=bool)

    def place(number: int, label: int | None) -> None:
        size = len(units[number])
        if (room[0] >= size) == (room[1] >= size):
            wishes = [(int(due[side][label]) if label is not None else 0, room[side]) for side in (0, 1)]
            side = int(wishes[1] > wishes[0]) if room[1] >= size else 0
        else:
            side = int(room[1] >= size)
        room[side] -= size
        for c, k in counts[number].items():
            due[side][c] -= k * n
            waiting[c] -= k
        held_out[units[number]] = side == 1
        placed[number] = True

    while waiting.any():
        rarest = int(np.where(waiting > 0, waiting, np.iinfo(np.int64).max).argmin())
        for number in holders[rarest]:
            if not placed[number]:
                place(number, rarest)
    for number in range(len(units)):
        if not placed[number]:
            place(number, None)
    return held_out
