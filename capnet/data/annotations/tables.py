"""Read a table that a person wrote, CSV or Parquet: row by row with its line, every mistake of the file collected."""

from __future__ import annotations

import csv
import difflib
import gzip
import io
import json
import shlex
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, cast

from capnet.contracts.tables import MOST_TIMES
from capnet.data.annotations.plain_files import LONGEST_LINE, open_plain
from capnet.errors import DataError, Problem, Problems, counted, some

MOST_ROWS = 50_000_000
MOST_BLANK = 2_000_000  # lines without a cell; a spreadsheet has a million rows
MOST_UNPACKED = 64 * 2**20  # bytes of memory for cells, whatever the file's size
LONGEST_CELL = 2**17  # letters, as the csv module has it; memory holds a text several times
SAVE_AS = "save the file as UTF-8 (in a spreadsheet: CSV UTF-8, comma separated)"
COMPARED = 1000  # columns whose names are compared with those that have a use
# what other programs call a column
USUAL_NAMES = {
    "path": ("file", "filename", "file_name", "filepath", "image", "image_path"),
    "labels": ("classes", "class", "tags", "category", "categories"),
}
ROW, VALUE = 100, 50  # bytes of memory for a row, and for a value of a list, beside the letters of its cells
UNPACKS = f"more than {MOST_UNPACKED:,} bytes, and {MOST_TIMES} times the file's: it could fill the memory"


@dataclass
class Table:
    """A table that is read as it is iterated over: (line, cells) per row, cells in the order of ``header``.

    ``problems`` grow while reading, and are raised as a DataError where nobody reads on. A Parquet file's lines are its
    rows, from 1; its cells may be lists and numbers. Messages call the file ``name``.
    """

    path: Path
    name: str
    header: list[str] = field(default_factory=list)
    problems: Problems = field(default_factory=Problems)
    # columns of a Parquet file that hold something else than text and numbers
    kinds: dict[str, str] = field(default_factory=dict)
    _rows: Iterable[tuple[int, list[Any]]] = ()

    def where(self, line: int) -> str:
        """Name of a row for a message."""
        return f"{self.name} row {line}"

    @property
    def columns(self) -> str:
        """The columns that there are, for a message."""
        return f"found {some(self.header, 30) or 'no column'}"

    def __iter__(self) -> Iterator[tuple[int, list[Any]]]:
        left = _most_unpacked(self.path) if self._rows else 0
        for line, cells in self._rows:
            long = [cell for cell in cells if isinstance(cell, str | list)]
            left -= ROW + sum(len(cell) if isinstance(cell, str) else VALUE * len(cell) for cell in long)
            if left < 0:
                todo = "write it again; a table of images that differ is not packed so well"
                raise self._ended(Problem(f"cells of {UNPACKS}", self.where(line), todo))
            if any(isinstance(cell, str) and len(cell) > LONGEST_CELL for cell in long):  # in CSV there is none
                what = f"a cell of more than {LONGEST_CELL:,} letters"
                raise self._ended(Problem(what, self.where(line), "write it shorter"))
            yield line, cells

    def _ended(self, problem: Problem) -> DataError:
        """All mistakes so far, where ``problem`` ends the reading."""
        self.problems.append(problem)
        return DataError(problems=self.problems)


def open_table(
    path: Path,
    columns: Sequence[str],
    required: Sequence[str],
    classes: Sequence[str] = (),
    either: Sequence[str] = (),
    name: str = "",
) -> Table:
    """Open a table and read its header; ``problems`` says whether that can be used.

    Args:
        path: a .parquet file, else CSV, gzipped where it ends in .gz.
        columns: names that are understood: a column that is nearly called so is a problem.
        required: those of them that must be there.
        classes: names of columns that are never such a mistake.
        either: columns that may be missing: the caller reports that itself.
        name: what messages call the file; by default its name without the folder.

    Returns:
        The table; it has no rows where its header cannot be used.
    """
    table = Table(path, name or path.name)
    rows = _parquet_rows(table) if path.suffix.lower() == ".parquet" else _csv_rows(table)
    if next(rows, None) is None:
        table.header = []
        if not table.problems:
            todo = f"write the header {','.join((*required, *either))} and one row each"
            table.problems.append(Problem("the file is empty", str(path), todo))
        return table
    table.problems.extend(_header_problems(table, columns, required, classes, either))
    for column in table.kinds.keys() & {*columns, *classes}:
        what = f"column {column!r} holds {table.kinds[column]}"
        table.problems.append(Problem(what, table.name, "write text or numbers; labels may also be lists of them"))
    if not table.problems:
        table._rows = rows
    return table


def texts_of(table: Table, cells: list[Any], columns: Sequence[str]) -> dict[str, str]:
    """The texts of a row by column, for those ``columns`` that the table has; "" for an empty cell."""
    return {
        name: "" if cell is None else str(cell)
        for name, cell in zip(table.header, cells, strict=True)
        if name in columns
    }


def cell_text(cell: Any) -> str:
    """A cell as text; a number without a fraction as an integer, whatever its type in a Parquet file."""
    if isinstance(cell, str):
        return cell
    if cell is None or cell != cell:
        return ""
    whole = isinstance(cell, bool) or (isinstance(cell, float) and cell.is_integer())
    return str(int(cell)) if whole else str(cell)


def _parquet_rows(table: Table) -> Iterator[tuple[int, list[Any]]]:
    """The header's row first, without cells; then every row."""
    import pyarrow.parquet as pq

    from capnet.contracts.parquet import DAMAGED, batches, declared_size

    row = 0
    try:
        with open_plain(table.path) as opened, pq.ParquetFile(opened) as file:
            table.header = list(file.schema_arrow.names)
            table.kinds = {field.name: str(field.type) for field in file.schema_arrow if not _is_plain(field.type)}
            if file.metadata.num_rows > MOST_ROWS:
                raise ValueError(f"{file.metadata.num_rows:,} rows, at most {MOST_ROWS:,} are read")
            size, further = declared_size(file, table.path)
            if size + VALUE * further + ROW * file.metadata.num_rows > _most_unpacked(table.path):
                raise ValueError(f"cells of {UNPACKS}")
            yield 0, []
            for batch in batches(opened, _most_unpacked(table.path)):
                for cells in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    row += 1
                    yield row, [cell.strip() if isinstance(cell, str) else cell for cell in cells]
    except (*DAMAGED, ValueError, MemoryError) as error:
        what = "not a Parquet file" if not row else f"damaged after row {row}"
        reason = " ".join(str(error).split())[:200] or "it needs more memory than there is"
        table.problems.append(Problem(f"{what}: {reason}", str(table.path), "write it again"))


def _most_unpacked(path: Path) -> int:
    """Bytes of memory that the cells of a file may take."""
    return max(MOST_UNPACKED, MOST_TIMES * path.stat().st_size)


def _is_plain(kind: Any) -> bool:
    """Is an Arrow type text, a number, true or false, or a list of such?"""
    from pyarrow import types

    from capnet.contracts.parquet import is_list

    if types.is_dictionary(kind):
        return _is_plain(kind.value_type)
    if is_list(kind):
        return _is_plain(kind.value_type) and not types.is_nested(kind.value_type)
    texts = (types.is_string, types.is_large_string, types.is_string_view)
    others = (types.is_integer, types.is_floating, types.is_boolean, types.is_null)
    return any(is_kind(kind) for is_kind in (*texts, *others))


def _csv_rows(table: Table) -> Iterator[tuple[int, list[Any]]]:
    """The header's row first, without cells; then every row that has as many cells as the header."""
    path = table.path
    line, blank = 1, 0
    try:
        with io.TextIOWrapper(_binary(path), encoding="utf-8-sig", newline="") as file:
            lines = _lines(file)
            head = next(lines, "")
            if "\0" in head:
                table.problems.append(Problem("not UTF-8 text: zero bytes, as UTF-16 has them", str(path), SAVE_AS))
                return
            if '",' not in head and any(f'"{mark}' in head for mark in ";\t"):
                head = head.replace('"', "")  # where another mark follows a quote, strict reading fails
            reader = csv.reader(chain([head], lines), strict=True)
            for cells in reader:
                first, line = line, reader.line_num + 1
                if not any(cell and not cell.isspace() for cell in cells):
                    blank += 1
                    if blank > MOST_BLANK:
                        raise csv.Error(f"more than {MOST_BLANK:,} lines without a cell")
                    continue
                if not table.header:
                    table.header = [cell.strip() for cell in cells]
                    yield first, []
                elif len(cells) != len(table.header):
                    what = f"{counted(len(cells), 'cell')}, the header has {len(table.header)}"
                    todo = 'write every cell, and put cells that hold a comma in "quotes"'
                    table.problems.append(Problem(what, table.where(first), todo))
                else:
                    yield first, [cell.strip() for cell in cells]
    except csv.Error as error:
        todo = 'look for a missing "quote" from that row on'
        table.problems.append(Problem(f"not a CSV file: {error}", table.where(line), todo))
    except UnicodeDecodeError:
        table.problems.extend(_not_utf8(path) or [Problem("not UTF-8 text", str(path), SAVE_AS)])
    except (EOFError, OSError, zlib.error) as error:
        table.problems.append(Problem(f"cannot be read: {error}", str(path), "replace the file by a good copy"))


def _binary(path: Path) -> BinaryIO:
    file = open_plain(path)
    return cast(BinaryIO, gzip.open(file, "rb")) if path.suffix.lower() == ".gz" else file


def _lines(file: io.TextIOWrapper) -> Iterator[str]:
    """The lines of a text; raises csv.Error at one that would fill the memory."""
    while line := file.readline(LONGEST_LINE):
        if len(line) == LONGEST_LINE and not line.endswith("\n"):
            raise csv.Error(f"a line of more than {LONGEST_LINE:,} letters")
        yield line


def _not_utf8(path: Path) -> list[Problem]:
    """The first byte of a file that is no UTF-8, with its line; none where all are."""
    with _binary(path) as file:
        for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), b""), start=1):
            try:
                line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                what = f"not UTF-8 text: byte 0x{line[error.start]:02x} in line {number}"
                if number == 1 and line.startswith((b"\xff\xfe", b"\xfe\xff")):
                    what = "not UTF-8 text: UTF-16, as its first bytes say"
                return [Problem(what, str(path), SAVE_AS)]
    return []


def _header_problems(
    table: Table, columns: Sequence[str], required: Sequence[str], classes: Sequence[str], either: Sequence[str]
) -> list[Problem]:
    header, where = table.header, table.where(1)
    missing = {*required} - {*header}
    divided = {
        mark: {part for cell in header for part in cell.split(mark)} for mark in ";\t" if mark in "".join(header)
    }
    if "".join(header[:1]).lower().startswith("sep="):
        table.header = []
        return [Problem("line 1 is no header: it tells a spreadsheet the separator", where, "remove that line")]
    if divided and (len(header) == 1 or (missing and any(missing <= names for names in divided.values()))):
        table.header = []  # it names no column
        with suppress(EOFError, OSError, zlib.error):  # a damaged archive
            if table.path.suffix.lower() != ".parquet" and (faults := _not_utf8(table.path)):
                return faults
        todo = f"save the file as comma separated CSV: `{_with_commas(table.path, next(iter(divided)))}`"
        return [Problem("the columns are not separated by commas", where, todo)]
    problems = [
        Problem(f"column {name!r} appears twice", where, "remove one")
        for name, times in sorted(Counter(header).items())
        if name and times > 1  # spreadsheets end every line with empty cells
    ]
    for name in required:
        if name not in header:
            close = similar_columns(name, header)
            todo = f"rename column {close[0]!r} to {name!r}" if close else f"call the column that holds it {name!r}"
            problems.append(Problem(f"column {name!r} is missing: {table.columns}", where, todo))
    known = {*columns, *classes}
    for name in [name for name in header if name not in known][:COMPARED]:
        close = difflib.get_close_matches(name.lower(), columns, n=1, cutoff=0.8)
        if close and close[0] not in required and not (close[0] in either and close[0] not in header):
            todo = f"did you mean {close[0]!r}? give it another name if not"
            problems.append(Problem(f"column {name!r} would be ignored", where, todo))
    return problems


def similar_columns(name: str, header: Sequence[str]) -> list[str]:
    """The column that ``name`` may be meant by, if any: spelled nearly so, or a usual name for the same."""
    usual = [column for column in header if column.lower() in USUAL_NAMES.get(name, ())]
    return difflib.get_close_matches(name, header[:COMPARED], n=1, cutoff=0.6) or usual[:1]


def _with_commas(path: Path, mark: str) -> str:
    """A command that writes the table with commas."""
    file, sep = json.dumps(str(path)), json.dumps(mark)
    read = f"pandas.read_csv({file}, sep={sep}, dtype=str, keep_default_na=False)"
    return f"python -c {shlex.quote(f'import pandas; {read}.to_csv({file}, index=False)')}"
