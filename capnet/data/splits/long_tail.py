"""Draw a long-tailed training list: what the draw aims at (Pareto, exponential), and which rows it takes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csc_array, csr_array

LAST_TAIL = 0.01  # the last class stands for the 0.99-quantile of the Pareto distribution


@dataclass(frozen=True)
class LongTailedDraw:
    """A long-tailed list: drawn ``rows`` in list order; per visited class its index, reference count and rows added (or
    removed, below 0).
    """

    rows: list[int]
    class_order: list[int]
    reference: list[int]
    steps: list[int]


def reference_curve(n_classes: int, maximum: int, minimum: int, shape: float) -> np.ndarray:
    """Reference counts that fall like a Pareto density.

    Source: Wu et al., ECCV 2020 (distribution-balanced loss), split tool: floor((max - min) x^-(b + 1) + min) at
    evenly spaced x from the 0-quantile (1) to the 0.99-quantile of Pareto(b).

    Args:
        n_classes: of the data.
        maximum: images of the first class.
        minimum: what counts fall towards.
        shape: b, the exponent of the Pareto distribution.

    Returns:
        int64 [class].
    """
    x = np.linspace(1.0, LAST_TAIL ** (-1.0 / shape), n_classes)
    return np.floor((maximum - minimum) * x ** -(shape + 1.0) + minimum).astype(np.int64)


def exponential_curve(n_classes: int, maximum: int, ratio: float) -> np.ndarray:
    """Reference counts that fall by one factor from class to class.

    Source: Cui et al., CVPR 2019 (class-balanced loss), the long-tailed CIFAR sets.

    Args:
        n_classes: of the data.
        maximum: images of the first class.
        ratio: maximum over the images of the last class.

    Returns:
        int64 [class], 1 at least.
    """
    share = np.arange(n_classes) / max(n_classes - 1, 1)
    return np.maximum(np.floor(maximum * ratio**-share + 1e-9), 1).astype(np.int64)


def dragged_in(labels: csr_array | np.ndarray) -> np.ndarray:
    """Per class the sum over i of P(class | i), float64 [class]: how much the other classes drag it in; ``labels`` bool
    [row, class].
    """
    from scipy.sparse import csr_array

    counts = csr_array(labels, dtype=np.int32)
    together = (counts.T @ counts).toarray().astype(np.float64)  # [class, class]
    return (together / np.maximum(np.diag(together), 1.0)[:, None]).sum(axis=0)


def class_order(labels: csr_array | np.ndarray) -> np.ndarray:
    """Classes in the order in which the draw visits them, int64 [class]: the most dragged in first, ties by index."""
    return np.argsort(-dragged_in(labels), kind="stable")


def long_tailed_draw(
    labels: csr_array | np.ndarray, reference: Sequence[int] | np.ndarray, seed: int
) -> LongTailedDraw:
    """Draw a long-tailed list of rows.

    One greedy pass from the most to the least dragged-in class: each class is filled up to its reference count from the
    rows not yet drawn (as far as they reach), or cut down to it; earlier classes are not visited again, so final counts
    differ from the reference. Source: Wu et al., ECCV 2020.

    The published lists hang on CPython's iteration order of sets of small integers, here and in the order of the
    result: the sets below are grown and shrunk one element at a time for that reason, and must stay sets of plain ints.

    Args:
        labels: known positives, sparse or dense bool [row, class], rows in ascending order of their ids.
        reference: int [class in visiting order].
        seed: of the draw.

    Returns:
        The drawn rows in list order, and what was done for each class.
    """
    from scipy.sparse import csc_array, csr_array

    order = [int(c) for c in class_order(labels)]
    counts = [int(n) for n in reference]
    by_row, by_class = csr_array(labels), csc_array(labels)
    by_row.sort_indices()
    by_class.sort_indices()
    drawn: set[int] = set()
    drawn_of_class: list[set[int]] = [set() for _ in order]
    generator = random.Random(seed)
    steps = []

    for c, count in zip(order, counts, strict=True):
        step = count - len(drawn_of_class[c])
        if step > 0:
            left = tuple(set(_entries(by_class, c)) - drawn_of_class[c])
            step = min(step, len(left))
            for row in generator.sample(left, step):
                drawn.add(row)
                for other in _entries(by_row, row):
                    drawn_of_class[other].add(row)
        elif step < 0:
            for row in generator.sample(tuple(drawn_of_class[c]), -step):
                drawn.remove(row)
                for other in _entries(by_row, row):
                    drawn_of_class[other].remove(row)
        steps.append(step)
    return LongTailedDraw(list(drawn), order, counts, steps)


def _entries(matrix: csr_array | csc_array, number: int) -> list[int]:
    """Positions of what is stored in a row of a CSR matrix, or in a column of a CSC matrix."""
    return matrix.indices[matrix.indptr[number] : matrix.indptr[number + 1]].tolist()
