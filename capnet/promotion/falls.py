"""Which classes fell most from one model to another: what a person looks at after a refusal."""

from __future__ import annotations

import numpy as np

from capnet.errors import counted
from capnet.evaluation.metrics import Floats, rank, weighted_average_precision
from capnet.promotion.verdict import Rows

MOST = 5


def largest_falls(rows: Rows, candidate: Floats, champion: Floats) -> tuple[str, ...]:
    """The classes whose average precision fell most, at most MOST, in words.

    Args:
        rows: test rows that both have scores for.
        candidate, champion: scores [picture, class].
    """
    once = np.ones((len(rows.labels), 1))
    theirs, ours = (
        100 * weighted_average_precision(rank(rows.labels, scores, rows.known), once)[:, 0]
        for scores in (champion, candidate)
    )
    positives = (rows.labels & rows.known).sum(axis=0)
    fell = [c for c in np.argsort(ours - theirs, kind="stable") if ours[c] < theirs[c]]  # without positives: NaN, last
    return tuple(
        f"{rows.names[c]} {theirs[c]:.1f} to {ours[c]:.1f}, {counted(int(positives[c]), 'test picture')}"
        for c in fell[:MOST]
    )
