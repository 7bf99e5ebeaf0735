"""What is left to compare where a candidate and the champion have other classes: those that both know. Here columns of
classes are chosen and put in order, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from capnet.errors import some

if TYPE_CHECKING:
    from capnet.promotion.scores import GateScores

Rescore = Callable[[pd.DataFrame], np.ndarray]


def class_changes(before: Sequence[str], now: Sequence[str]) -> str:
    """In words, what differs between two lists of classes that are not the same, their order apart."""
    gone, new = sorted(set(before) - set(now)), sorted(set(now) - set(before))
    return f"gone: {some(gone) or 'none'}; new: {some(new) or 'none'}"


def columns_of(model: GateScores, names: Sequence[str]) -> list[int]:
    """The columns of some classes in a model's scores."""
    column = {name: number for number, name in enumerate(model.names)}
    return [column[name] for name in names]


def restricted_to(model: GateScores, names: Sequence[str]) -> GateScores:
    """A model's scores and labels as if it had some of its classes alone.

    Args:
        model: what the gate compares.
        names: of these classes, in the order that they shall have.
    """
    columns = columns_of(model, names)
    number = {column: new for new, column in enumerate(columns)}
    numbers = {
        kind: pd.Series([[number[c] for c in map(int, row) if c in number] for row in model.test[kind]], dtype=object)
        for kind in ("labels", "unknown")
    }
    scores = pd.Series([np.asarray(row, dtype=np.float32)[columns] for row in model.test["scores"]], dtype=object)
    items = [model.classes["classes"][column] for column in columns]
    test = model.test.reset_index(drop=True).assign(**numbers, scores=scores)
    return replace(model, classes={**model.classes, "classes": items}, test=test)


def rescored_classes(rescore: Rescore | None, model: GateScores, names: Sequence[str]) -> Rescore | None:
    """``rescore`` of a model, with the columns of some of its classes alone, in their order."""
    if rescore is None:
        return None
    columns = columns_of(model, names)
    return lambda rows: rescore(rows)[:, columns]
