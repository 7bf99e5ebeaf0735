"""Which pictures an epoch shows, in which order: a function of seed and epoch, so that a resumed run continues
alike.
"""

from __future__ import annotations

from itertools import cycle

import numpy as np

PER_VISIT = 3  # pictures drawn each time a class is visited (DB loss, Wu et al., ECCV 2020)


def shuffled(n_rows: int, seed: int, epoch: int) -> np.ndarray:
    """Every row once, in random order: int64 [row]."""
    return np.random.default_rng([seed, epoch, 1]).permutation(n_rows)


def class_aware(targets: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """Classes in shuffled cycles, three of a class's pictures per visit from its own shuffled cycle: int64 [row].

    ``targets`` is bool [row, class]; the epoch is as long as the table, so schedules do not depend on the sampler.
    """
    rng = np.random.default_rng([seed, epoch, 2])
    pictures = {c: cycle(rng.permutation(np.flatnonzero(column))) for c, column in enumerate(targets.T) if column.any()}
    if not pictures:
        return shuffled(len(targets), seed, epoch)
    order: list[int] = []
    while len(order) < len(targets):
        for c in rng.permutation(list(pictures)):
            order.extend(int(next(pictures[c])) for _ in range(PER_VISIT))
    return np.array(order[: len(targets)], dtype=np.int64)
