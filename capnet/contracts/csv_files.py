"""CSV tables that this program writes: the same bytes on every system, read back with every cell in its place."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import TextIO

from capnet.contracts.files import AGAIN, check_exists, check_small, reading
from capnet.errors import ContractError

MOST_ROWS = 1_000_000  # of a stage's CSV


def csv_text(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A CSV table with a header, in the same bytes on every system."""
    text = io.StringIO()
    csv.writer(CsvLines(text), lineterminator=CsvLines.END).writerows([head, *rows])
    return text.getvalue()


class CsvLines:
    """A file whose lines end alike on every system, for csv writers that end them with END: before Python 3.13 they put
    a cell in quotes for those characters alone, and a file's name may hold a carriage return.
    """

    END = "\r\n"

    def __init__(self, file: TextIO) -> None:
        """Remember the file, which is open for text."""
        self._file = file

    def write(self, row: str) -> int:
        """Write a row that ends with END.

        Args:
            row: as a csv writer writes it.
        """
        return self._file.write(row.removesuffix(self.END) + "\n")


def read_csv_rows(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a CSV table that a stage wrote, as text.

    Args:
        path: per_class.csv or history.csv.
        columns: what it must have.

    Raises:
        ContractError: the file is missing or damaged, or lacks a column.
    """
    check_exists(path)
    with reading(path), open(path, newline="", encoding="utf-8") as file:
        check_small(path)
        reader = csv.DictReader(file, strict=True)
        rows, head = list(islice(reader, MOST_ROWS + 1)), reader.fieldnames or ()
        if len(rows) > MOST_ROWS:
            raise ValueError(f"more than {MOST_ROWS:,} rows")
    missing = [name for name in columns if name not in head]
    if missing:
        raise ContractError(f"columns are missing: {', '.join(missing)}", str(path), AGAIN)
    uneven = next((number for number, row in enumerate(rows, start=1) if None in row or None in row.values()), 0)
    if uneven:
        raise ContractError(f"row {uneven} has more or fewer cells than the head", str(path), AGAIN)
    return rows


def number(cell: str | None) -> float | None:
    """A cell of ``read_csv_rows`` as a number; None where it is empty or no number."""
    try:
        return float(cell) if cell else None
    except ValueError:
        return None
