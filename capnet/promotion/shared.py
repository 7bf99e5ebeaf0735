"""What is left to compare where a candidate and the champion have other classes: those that both know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from capnet.errors import some

if TYPE_CHECKING:
    from capnet.promotion.scores import GateScores


def class_changes(before: Sequence[str], now: Sequence[str]) -> str:
    """In words, what differs between two lists of classes that are not the same."""
    gone, new = sorted(set(before) - set(now)), sorted(set(now) - set(before))
    if not gone and not new:
        return "the same in another order"
    return f"gone: {some(gone) or 'none'}; new: {some(new) or 'none'}"


def columns_of(model: GateScores, names: Sequence[str]) -> list[int]:
    """The columns of some classes in a model's scores."""
    column = {name: number for number, name in enumerate(model.names)}
    return [column[name] for name in names]


def of_classes(model: GateScores, names: Sequence[str]) -> GateScores:
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
