"""What is left to compare where a candidate and the champion have other classes: those that both know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from capnet.errors import some

if TYPE_CHECKING:
    from capnet.promotion.gate import Rescore
    from capnet.promotion.scores import GateScores


def class_changes(before: Sequence[str], now: Sequence[str]) -> str:
    """In words, what differs between two lists of classes that are not the same."""
    gone, new = sorted(set(before) - set(now)), sorted(set(now) - set(before))
    if not gone and not new:
        return "the same in another order"
    return f"gone: {some(gone) or 'none'}; new: {some(new) or 'none'}"


def of_shared_classes(
    candidate: GateScores, champion: GateScores, rescore: Rescore | None
) -> tuple[GateScores, GateScores, Rescore | None]:
    """Both models as if they had the classes alone that both know, in the candidate's order.

    Args:
        candidate, champion: with at least one class in common.
        rescore: gives the champion's scores of all its classes; None for none.

    Returns:
        The two models, and what gives the champion's scores of these classes.
    """
    names = [name for name in candidate.names if name in champion.names]
    columns = [champion.names.index(name) for name in names]
    again = None if rescore is None else lambda rows: rescore(rows)[:, columns]
    return _of_classes(candidate, names), _of_classes(champion, names), again


def _of_classes(model: GateScores, names: Sequence[str]) -> GateScores:
    columns = [model.names.index(name) for name in names]
    number = {column: new for new, column in enumerate(columns)}
    numbers = {
        kind: pd.Series([[number[c] for c in map(int, row) if c in number] for row in model.test[kind]], dtype=object)
        for kind in ("labels", "unknown")
    }
    scores = pd.Series([np.asarray(row, dtype=np.float32)[columns] for row in model.test["scores"]], dtype=object)
    items = [model.classes["classes"][column] for column in columns]
    test = model.test.reset_index(drop=True).assign(**numbers, scores=scores)
    return replace(model, classes={**model.classes, "classes": items}, test=test)
