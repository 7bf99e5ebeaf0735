"""What the rows of gate scores must be like: they come from a store, so from whoever may write there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from capnet.errors import ContractError

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = {"test": ("sha256", "group", "labels", "unknown", "scores"), "seen": ("sha256", "group")}
KEYS = {"name": str, "bucket": str, "critical": bool}


def check_rows(classes: Any, test: pd.DataFrame, seen: pd.DataFrame, where: str) -> None:
    """Refuse what no registration writes.

    Args:
        classes: list of classes with name, bucket and critical.
        test: rows with sha256, group, labels, unknown, scores.
        seen: rows with sha256 and group.
        where: their folder, for the message.

    Raises:
        ContractError: classes, columns, labels or scores are damaged; names every fault.
    """
    faults = [*_classes(classes), *_columns(test, "test"), *_columns(seen, "seen")]
    if not faults:
        faults = [*_texts(test, "test"), *_texts(seen, "seen"), *_numbers(test, len(classes))]
    if faults:
        raise ContractError(f"scores for the gate are damaged: {'; '.join(faults)}", where, "register the model again")


def _classes(classes: Any) -> Iterator[str]:
    rows = classes if isinstance(classes, list) else []
    right = [isinstance(row, dict) and all(isinstance(row.get(key), KEYS[key]) for key in KEYS) for row in rows]
    if not rows or not all(right):
        yield "no list of classes with name, bucket and critical"
    elif len({row["name"] for row in rows}) < len(rows):
        yield "a class is there twice"


def _columns(table: pd.DataFrame, name: str) -> Iterator[str]:
    missing = [column for column in COLUMNS[name] if column not in table]
    if missing:
        yield f"{name} rows lack {', '.join(missing)}"


def _texts(table: pd.DataFrame, name: str) -> Iterator[str]:
    for column in COLUMNS["seen"]:
        if not all(isinstance(value, str) for value in table[column]):
            yield f"{column} of {name} rows is no text"


def _numbers(test: pd.DataFrame, classes: int) -> Iterator[str]:
    import numpy as np

    for column in ("labels", "unknown"):
        rows = list(test[column])
        if not all(isinstance(row, list | tuple | np.ndarray) for row in rows):
            yield f"{column} are no lists"
            continue
        found = np.concatenate([np.empty(0), *(np.asarray(row, dtype=float) for row in rows)])
        if not np.isin(found, np.arange(classes)).all():
            yield f"{column} name a class that is not there"
    rows = list(test["scores"])
    if not all(isinstance(row, list | tuple | np.ndarray) and len(row) == classes for row in rows):
        yield f"scores are not those of {classes} classes"
    elif rows and not np.isfinite(np.asarray(rows, dtype=float)).all():
        yield "scores are no numbers"
