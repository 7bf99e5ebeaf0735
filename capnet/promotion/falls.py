"""Which classes fell most from one model to another: what a person looks at after a refusal."""

from __future__ import annotations

import numpy as np

from capnet.errors import counted
from capnet.evaluation.metrics import Floats, average_precision
from capnet.promotion.compared_rows import ComparedRows

MOST = 5


def largest_falls(rows: ComparedRows, candidate: Floats, champion: Floats) -> tuple[str, ...]:
    """The classes whose average precision fell most, at most MOST, in words.

    Args:
        rows: test rows that both have scores for.
        candidate, champion: scores [image, class].
    """
    theirs, ours = (100 * average_precision(rows.labels, scores, rows.known) for scores in (champion, candidate))
    positives = (rows.labels & rows.known).sum(axis=0)
    # NaN, without positives or negatives, is no fall
    fell = [c for c in np.argsort(ours - theirs, kind="stable") if ours[c] < theirs[c]]
    figures = [(c, f"{theirs[c]:.1f}", f"{ours[c]:.1f}") for c in fell]
    return tuple(
        f"{rows.names[c]} {before} to {now}, {counted(int(positives[c]), 'test picture')}"
        for c, before, now in figures[:MOST]
        if before != now
    )
