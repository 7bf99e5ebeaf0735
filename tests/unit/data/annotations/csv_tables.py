"""Tables written for the labels.csv reader, and what it says of them."""

from __future__ import annotations

from pathlib import Path

from capnet.config import Ingest
from capnet.data.annotations.paths import DataFolder
from capnet.data.annotations.readers import csv
from capnet.data.annotations.rows import Annotations
from capnet.errors import DataError, Problem


def read(root: Path, settings: Ingest) -> Annotations:
    return csv.read(DataFolder(root), settings)


def write(root: Path, labels: str | bytes, classes: str | None = None) -> Path:
    root.mkdir(exist_ok=True)
    (root / "labels.csv").write_bytes(labels if isinstance(labels, bytes) else labels.encode())
    if classes is not None:
        (root / "classes.csv").write_text(classes)
    return root


def problems_of(root: Path, settings: Ingest | None = None) -> list[Problem]:
    """What the reader says is wrong, whether it could go on or not."""
    try:
        return read(root, settings or Ingest()).problems
    except DataError as error:
        return error.problems


def accept(root: Path, settings: Ingest | None = None) -> Annotations:
    result = read(root, settings or Ingest())
    assert result.problems == []
    return result


def wide(root: Path, table: str, classes: str = "name\nfox\ndeer\nbird\n") -> Path:
    return write(root, table, classes)
