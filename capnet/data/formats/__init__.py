"""Readers of native annotation formats, one file a format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from capnet.contracts import Classes
    from capnet.errors import Problem


@dataclass(frozen=True)
class Annotations:
    """What a reader returns: manifest columns without width, height and sha256, and ``where`` (file and row, for messages)."""

    rows: pd.DataFrame
    classes: Classes
    problems: list[Problem]
