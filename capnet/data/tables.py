"""Read a CSV table that a person wrote: every row with its line, every mistake of the file collected."""

from __future__ import annotations

import csv
import difflib
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from capnet.errors import Problem


@dataclass
class Table:
    """A CSV file: each row's cells by column and its line in the file; ``problems`` are what is wrong with the file itself."""

    path: Path
    rows: list[dict[str, str]] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def where(self, number: int) -> str:
        """Name of row ``number`` for a message."""
        return f"{self.path.name} row {self.lines[number]}"


def read_table(path: Path, columns: Sequence[str], required: Sequence[str]) -> Table:
    """Read a CSV file with a header; what is wrong with it is collected in the result's ``problems``."""
    table = Table(path)
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        what = f"not UTF-8 text: byte 0x{data[error.start]:02x} in line {line}"
        table.problems.append(Problem(what, str(path), "save the file as UTF-8 (in a spreadsheet: CSV UTF-8, comma separated)"))
        return table
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    line = 1
    try:
        for cells in reader:
            first, line = line, reader.line_num + 1
            if not any(cell.strip() for cell in cells):
                continue
            if header is None:
                header = [cell.strip() for cell in cells]
                table.problems.extend(_header_problems(path, header, columns, required))
                if table.problems:
                    return table
            elif len(cells) != len(header):
                what = f"{len(cells)} cells, the header has {len(header)}"
                table.problems.append(Problem(what, f"{path.name} row {first}", 'write every cell, and put cells that hold a comma in "quotes"'))
            else:
                table.rows.append({name: cell.strip() for name, cell in zip(header, cells, strict=True)})
                table.lines.append(first)
    except csv.Error as error:
        table.problems.append(Problem(f"not a CSV file: {error}", f"{path.name} row {line}", 'look for a missing "quote" from that row on'))
    if header is None and not table.problems:
        table.problems.append(Problem("the file is empty", str(path), f"write the header {','.join(required)} and one row each"))
    return table


def _header_problems(path: Path, header: Sequence[str], columns: Sequence[str], required: Sequence[str]) -> list[Problem]:
    where = f"{path.name} row 1"
    found = f"found {', '.join(header)}"
    if len(header) == 1 and any(mark in header[0] for mark in ";\t"):
        return [Problem("the columns are not separated by commas", where, "save the file as comma separated CSV")]
    problems = [Problem(f"column {name!r} is there twice", where, "remove one") for name in sorted({name for name in header if header.count(name) > 1})]
    for name in required:
        if name not in header:
            close = difflib.get_close_matches(name, header, n=1, cutoff=0.6)
            todo = f"rename column {close[0]!r} to {name!r}" if close else f"add a column {name!r}"
            problems.append(Problem(f"column {name!r} is missing: {found}", where, todo))
    for name in header:
        close = [] if name in columns else difflib.get_close_matches(name.lower(), columns, n=1, cutoff=0.8)
        if close and close[0] not in required:
            problems.append(Problem(f"column {name!r} would be ignored", where, f"did you mean {close[0]!r}? give it another name if not"))
    return problems
