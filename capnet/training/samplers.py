"""Which images an epoch shows, in which order: a function of seed and epoch, so that a resumed run continues alike."""

from __future__ import annotations

import math
from itertools import cycle

import numpy as np

from capnet.config import Train

PER_VISIT = 3  # images drawn each time a class is visited (DB loss, Wu et al., ECCV 2020)


def batches(targets: np.ndarray, settings: Train, seed: int, epoch: int) -> list[np.ndarray]:
    """The batches of an epoch, whose sizes differ by one image at most.

    Args:
        targets: bool [row, class].
        settings: section train.
        seed: of all random draws.
        epoch: from 1 on.

    Returns:
        int64 [image] for each batch: rows of the table.
    """
    if settings.sampler == "class_aware":
        order = class_aware(targets, seed, epoch)
    else:
        order = shuffled(len(targets), seed, epoch)
    return np.array_split(order, math.ceil(len(targets) / settings.batch_size))


def shuffled(n_rows: int, seed: int, epoch: int) -> np.ndarray:
    """Every row once, in random order.

    Args:
        n_rows: of the table.
        seed, epoch: of the draw; equal ones give equal orders.

    Returns:
        int64 [row].
    """
    return np.random.default_rng([seed, epoch, 1]).permutation(n_rows)


def class_aware(targets: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """Classes in shuffled cycles, three of a class's images per visit from its own shuffled cycle.

    Args:
        targets: bool [row, class].
        seed, epoch: of the draw; equal ones give equal orders.

    Returns:
        int64 [row], rows more than once or not at all, but as many as the table has, so that schedules do not depend on
        the sampler. Without any positive the order of ``shuffled``.
    """
    rng = np.random.default_rng([seed, epoch, 2])
    images = {c: cycle(rng.permutation(np.flatnonzero(column))) for c, column in enumerate(targets.T) if column.any()}
    if not images:
        return shuffled(len(targets), seed, epoch)
    order: list[int] = []
    while len(order) < len(targets):
        for c in rng.permutation(list(images)):
            order.extend(int(next(images[c])) for _ in range(PER_VISIT))
    return np.array(order[: len(targets)], dtype=np.int64)
