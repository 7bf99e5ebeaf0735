"""Readers of native annotation formats, one file a format: ``read(root, settings) -> Annotations``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from capnet.contracts import Classes
    from capnet.errors import Problem


@dataclass(frozen=True)
class Annotations:
    """What a reader returns: manifest columns in ``rows``, the classes, and every mistake.

    width, height and sha256 are there where the annotations have them, ``sequence`` where there are bursts. Column
    ``where`` is a row's place in its file, ``source`` the file's name with a word for the place. ``left_out`` are
    pictures that the format itself takes out, by reason.
    """

    rows: pd.DataFrame
    classes: Classes
    problems: list[Problem]
    source: str = "{}"
    left_out: dict[str, int] = field(default_factory=dict)

    def where(self, row: int) -> str:
        """Name of a row for a message."""
        return self.source.format(self.rows["where"].iloc[row])
