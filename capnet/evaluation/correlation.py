"""Does the label graph know which labels appear together? Its rows against the test labels, beside the training counts'
own.

The paper's premise (CapNet, arXiv 2511.20641): co-occurrence counted on a long-tailed training set is unreliable for
rare classes, so the label graph is taken from the text encoder instead. Here that is checked on the user's own labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from capnet.contracts import BUCKETS
from capnet.evaluation.bootstrap import LEVEL
from capnet.model.graph import cooccurrence

MIN_TEST_POSITIVES = 5  # a row P(. | class) of fewer images is mostly chance
MIN_ROWS = 5  # fewer classes allow no statement about a bucket


@dataclass(frozen=True)
class Premise:
    """Spearman correlations with the test labels' co-occurrence: mean over the usable classes of one bucket."""

    classes: int  # rows compared
    left_out: int  # rows with too few test positives, or without any companion
    graph: float  # mean over rows, NaN without rows
    counts: float
    difference: float  # graph minus counts
    low: float  # 95 % interval of the difference over classes (Student's t), NaN below MIN_ROWS rows
    high: float

    @property
    def verdict(self) -> str:
        """``graph``, ``counts``, ``even`` (interval includes 0) or ``unknown`` (too few classes)."""
        if not np.isfinite(self.low):
            return "unknown"
        if self.low > 0:
            return "graph"
        return "counts" if self.high < 0 else "even"


def without_diagonal(matrix: np.ndarray) -> np.ndarray:
    """[class, class] -> [class, class - 1]: every row without the class itself."""
    size = len(matrix)
    return matrix[~np.eye(size, dtype=bool)].reshape(size, max(size - 1, 0))


def row_spearman(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Spearman correlation of each pair of rows, ties by average rank: float64 [row], NaN where a row is constant."""
    ranks = [pd.DataFrame(matrix).rank(axis=1) for matrix in (first, second)]
    return ranks[0].corrwith(ranks[1], axis=1).to_numpy()


def check_premise(
    adjacency: np.ndarray,
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    buckets: np.ndarray,
) -> Mapping[str, Premise]:
    """Compare the rows of the label graph and of the training co-occurrence with the test co-occurrence.

    The class itself is left out of every row. A source whose row is constant orders nothing: its correlation counts as
    0, so that a class that training never saw beside another one cannot be left out in favour of the counts.

    Args:
        adjacency: of the label graph, [class, class].
        train, test: labels and known, each bool [image, class].
        buckets: head, medium or tail, str [class].

    Returns:
        A Premise for ``all`` and for every bucket that has classes, over those with MIN_TEST_POSITIVES or more.
    """
    labels, known = test
    target = without_diagonal(cooccurrence(labels, known))
    usable = ((labels & known).sum(axis=0) >= MIN_TEST_POSITIVES) & (
        target.max(axis=1, initial=0.0) > target.min(axis=1, initial=1.0)
    )
    sources = [without_diagonal(np.asarray(matrix, dtype=np.float64)) for matrix in (adjacency, cooccurrence(*train))]
    graph, counts = (np.nan_to_num(row_spearman(source, target), nan=0.0) for source in sources)
    groups = {"all": np.ones(len(buckets), dtype=bool)} | {bucket: buckets == bucket for bucket in BUCKETS}
    return {name: _premise(graph, counts, members, usable) for name, members in groups.items() if members.any()}


def _premise(graph: np.ndarray, counts: np.ndarray, members: np.ndarray, usable: np.ndarray) -> Premise:
    rows = members & usable
    n = int(rows.sum())
    left_out = int(members.sum()) - n
    if not n:
        return Premise(0, left_out, *([float("nan")] * 5))
    difference = graph[rows] - counts[rows]
    low = high = float("nan")
    if n >= MIN_ROWS:
        width = stdtrit(n - 1, (1 + LEVEL) / 2) * difference.std(ddof=1) / np.sqrt(n)
        low, high = difference.mean() - width, difference.mean() + width
    by_graph, by_counts, mean = (float(values.mean()) for values in (graph[rows], counts[rows], difference))
    return Premise(n, left_out, by_graph, by_counts, mean, float(low), float(high))


def strongest_neighbours(matrix: np.ndarray, count: int) -> list[list[tuple[int, float]]]:
    """The largest positive entries of each row besides the class itself.

    Args:
        matrix: [class, class].
        count: entries of a row, at most.

    Returns:
        For each row (class, weight), largest first.
    """
    result = []
    for row, weights in enumerate(np.asarray(matrix, dtype=np.float64)):
        order = [int(j) for j in np.argsort(-weights, kind="stable") if j != row and weights[j] > 0]
        result.append([(j, float(weights[j])) for j in order[:count]])
    return result
