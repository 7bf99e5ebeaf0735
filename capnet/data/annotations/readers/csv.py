"""labels.csv and images/: the simplest way to write multi-label images down, with an optional classes.csv that people
edit.

The table (CSV, gzipped CSV or Parquet) has one row an image: ``path`` (relative to the data folder) and ``labels``,
and optionally ``unknown`` (labels whose state is not known), ``image_id``, ``split`` (train, val or test), ``group``,
``slice``, ``sequence`` (frames of one burst, a group where the row has no other), ``width``, ``height`` and
``sha256``. Labels are class names with a separator between them, or 0-based indices into classes.csv. Without the
column ``labels``, every class of classes.csv has a column of its own with 1, 0, or -1 for unknown; a class that the
column ``unknown`` names is unknown, too. Other columns are left alone.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from capnet.contracts import SPLITS, Classes
from capnet.data.annotations.class_list import read_classes_csv
from capnet.data.annotations.label_names import EMPTY_CELLS, accents_advice, classes_of, codes_of, misspelt
from capnet.data.annotations.paths import DataFolder
from capnet.data.annotations.plain_files import EXPORTS
from capnet.data.annotations.rows import OPTIONAL_COLUMNS, SIZES, Annotations, RowList, make_rows
from capnet.data.annotations.tables import Table, cell_text, open_table, similar_columns
from capnet.data.annotations.unread_columns import STATES, UnreadColumns
from capnet.errors import SHOWN, DataError, Problem, Problems, some

if TYPE_CHECKING:
    from capnet.config import Ingest

TEXT_COLUMNS = ("image_id", "split", "group", "slice", "sequence", "sha256")
LABEL_COLUMNS = ("path", "labels", "unknown", *TEXT_COLUMNS, *SIZES)
TABLES = (".csv", ".csv.gz", ".parquet")
OTHER_FORMATS = (".json", ".jsonl", ".ndjson", ".xml", ".yaml")
SPREADSHEETS = (".xlsx", ".xls", ".ods", ".numbers")
TEXT_FILES = (".tsv", ".txt")  # as spreadsheet programs call a table with tabs
_SHA256 = re.compile("[0-9a-fA-F]{64}")


def read(folder: DataFolder, settings: Ingest) -> Annotations:
    """Read the rows in the table's order, the classes, and every mistake in the label table and classes.csv.

    Args:
        folder: the data folder.
        settings: the section ``ingest``.

    Raises:
        DataError: there is nothing to go on with: no table, or no header or class names that can be read.
    """
    path = _find(folder, settings)
    listed: Classes | None = None
    problems, numbers = list[Problem](), ""
    if settings.classes and folder.has(settings.classes):
        listed, problems, numbers = read_classes_csv(folder.path(settings.classes), settings.separator)
    return read_table(path, listed, settings, problems, numbers=numbers)


def read_table(
    path: Path,
    listed: Classes | None,
    settings: Ingest,
    problems: Sequence[Problem] = (),
    *,
    listed_in: str = "",
    numbers: str = "",
    names_only: bool = False,
    name: str = "",
) -> Annotations:
    """Read the rows of one table.

    Args:
        path: of the table.
        listed: the classes; None for the labels in use.
        settings: the section ``ingest``.
        problems: mistakes in the list of classes.
        listed_in: what has the classes, for messages; by default the file that ``settings.classes`` names.
        numbers: column of that file that numbers the classes in another way than labels do.
        names_only: whether labels that are numbers are a mistake.
        name: what messages call the table; by default its name without the folder.

    Raises:
        DataError: as in ``read``.
    """
    names = list(dict.fromkeys(listed.names)) if listed else []  # one that stands twice is a problem already
    table = open_table(path, LABEL_COLUMNS, ("path",), names, ("labels",), name)
    wide = "labels" not in table.header
    listed_in = listed_in or settings.classes
    missing = _missing_labels(table, listed, listed_in) if table.header and wide else []
    if not table.header or table.problems or missing or (listed is not None and not len(listed)):
        raise DataError(problems=[*table.problems, *missing, *problems])
    if wide:
        _refuse_classes_in_other_columns(names, settings)
    cells = _Cells(table, settings, names if wide else [])
    for line, row in table:
        cells.add(line, row)
    problems = [*table.problems, *problems, *cells.problems]
    if not len(cells.rows) and not cells.rows.problems:
        if not problems:
            what = "no rows: there is a header and nothing below it"
            problems.append(Problem(what, str(path), "write one row an image"))
        raise DataError(problems=problems)
    classes, index, mistakes, warnings = classes_of(table, cells.tokens, listed, settings)
    by_number = bool(cells.tokens) and index.keys().isdisjoint(classes.names)
    if names_only and by_number:
        what = "labels are numbers, and nothing says which classes these are"
        problems.append(Problem(what, table.name, "write names of classes in column labels"))
    elif numbers and by_number:
        what = f"labels are numbers, which count rows of {settings.classes}, and its column {numbers!r} has others"
        todo = f"sort {settings.classes} by it, from 0 and without gaps, or write names in column labels"
        problems.append(Problem(what, str(path), todo))
    codes, strange = codes_of(table, cells.rows, list(cells.tokens), index, settings, listed_in)
    if listed is None:
        warnings += misspelt(cells.rows.labels, list(cells.tokens), settings)
    warnings += cells.warnings()
    if not wide and (doubled := [name for name in names if name in cells.column and name not in LABEL_COLUMNS]):
        warnings.append(f"columns of classes are not read where there is a column 'labels': {some(doubled, SHOWN)}")
    return make_rows(cells.rows, classes, [*problems, *mistakes, *strange], codes=codes, warnings=warnings)


def _find(folder: DataFolder, settings: Ingest) -> Path:
    """The label table; raises DataError where the folder or the table is not there."""
    if not settings.labels:
        raise DataError("no label table is named", "ingest.labels is empty", "name it, such as labels.csv")
    table = folder.path(settings.labels)
    if settings.labels.lower().endswith(OTHER_FORMATS):
        raise DataError(f"ingest.labels = {settings.labels!r} is no CSV or Parquet file", str(folder), EXPORTS)
    if table.is_file():
        return table
    if table.is_dir():
        what = f"ingest.labels = {settings.labels!r} is a folder"
        parts = "pandas.read_parquet(FOLDER).to_parquet(FILE) makes one file of parts"
        raise DataError(what, str(table), f"name the label table, such as labels.csv; {parts}")
    entries = folder.names()
    if not entries:
        what = "there is no data folder" if entries is None else "the data folder is empty"
        raise DataError(what, str(folder), _how_to_begin(folder, settings))
    if folder.has(settings.labels):
        what = f"ingest.labels = {settings.labels!r} is no plain file, or a broken link"
        raise DataError(what, str(table), "put the table itself there, or name another file")
    raise DataError(f"the data folder has no {settings.labels}", str(folder), _advice(folder, settings, entries))


def _how_to_begin(folder: DataFolder, settings: Ingest) -> str:
    """What to do where the data is not there."""
    if str(folder).startswith("~"):
        return "write the whole path: only a shell reads ~ as your own folder"
    todo = (
        f"write {settings.labels} (path, labels) there, correct data.root, or draw the demo pictures: capnet demo-data"
        " --out data"
    )
    if file := folder.dvc_file:
        return f"fetch what {file} names: make data-pull, or dvc pull {quote(file)}; or {todo}"
    return todo


def _advice(folder: DataFolder, settings: Ingest, entries: list[str]) -> str:
    """What to do where the data folder has ``entries``, and no label table among them."""
    entries = [name for name in entries if name not in (settings.classes, settings.corrections)]
    close = difflib.get_close_matches(settings.labels.lower(), [name.lower() for name in entries], n=1, cutoff=0.7)
    similar = next((name for name in entries if close and name.lower() == close[0]), "")
    tables = [name for name in entries if name.endswith(TABLES)]
    if similar.lower().endswith(OTHER_FORMATS):
        return EXPORTS
    if similar.lower().endswith(SPREADSHEETS):
        return f"save {similar} as {settings.labels} in the spreadsheet program (CSV UTF-8, comma separated)"
    if similar:
        return f"rename {similar} to {settings.labels}, or set ingest.labels: {similar}"
    if len(tables) == 1:
        return f"set ingest.labels: {tables[0]}, or write {settings.labels} (path, labels) there"
    return f"{_how_to_begin(folder, settings)}; {EXPORTS}"


class _Cells:
    """Cells of the table into rows; ``tokens`` has the code of each different label text."""

    def __init__(self, table: Table, settings: Ingest, class_columns: list[str]) -> None:
        self.table, self.settings, self.class_columns = table, settings, class_columns
        self.column = {name: number for number, name in enumerate(table.header)}
        self.tokens: dict[str, int] = {name: number for number, name in enumerate(class_columns)}
        has = [name for name in OPTIONAL_COLUMNS if name in self.column]
        self.rows = RowList(*has, source=f"{table.name} row {{}}")
        self.text = [name for name in TEXT_COLUMNS if name in self.column]
        self.sizes = [name for name in SIZES if name in self.column]
        self.problems = Problems()
        self._unread = UnreadColumns(table.header, LABEL_COLUMNS, class_columns)
        self._has_absent = self._has_empty = False  # among the cells of classes
        self._empty: set[str] = set()  # words for an empty cell that a problem names already

    def add(self, line: int, cells: list[Any]) -> None:
        """Add the row of a line."""
        if cells == self.table.header:
            todo = "remove the row; one header, above all rows, is enough"
            self.problems.append(Problem("the row is the header once more", self.table.where(line), todo))
            return
        self._unread.add(cells)
        if self.class_columns:
            labels, unknown = self._states(cells, line)
        else:
            labels, unknown = self._codes(cells[self.column["labels"]]), []
        if "unknown" in self.column:
            unknown += self._codes(cells[self.column["unknown"]])
        more: dict[str, Any] = {name: self._text(name, cell_text(cells[self.column[name]]), line) for name in self.text}
        more["given_split"] = more.pop("split", None)
        more |= {name: self._size(name, cell_text(cells[self.column[name]]), line) for name in self.sizes}
        self.rows.add(cell_text(cells[self.column["path"]]), labels, line, unknown=unknown, **more)

    def warnings(self) -> list[str]:
        """What may be a mistake in columns that nothing reads, and in how absent classes are written."""
        warnings = self._unread.warnings(self.settings.classes)
        if self._has_empty and not self._has_absent:
            what = "no cell of a class is 0, and an empty cell means unknown: if it means absent, set"
            warnings.append(f"{what} ingest.empty_cell: negative")
        return warnings

    def _codes(self, cell: Any) -> list[int]:
        """Codes of a cell of labels: text with separators, or a list or a number as Parquet has them."""
        parts = cell if isinstance(cell, list) else cell_text(cell).split(self.settings.separator)
        tokens = (cell_text(part).strip() for part in parts)
        return [self.tokens.setdefault(token, len(self.tokens)) for token in tokens if token]

    def _states(self, cells: list[Any], line: int) -> tuple[list[int], list[int]]:
        """Labels and unknown from one cell a class: 1, 0, or -1 and (by setting) empty for unknown."""
        known, unsure = [], []
        empty = -1 if self.settings.empty_cell == "unknown" else 0
        for c, name in enumerate(self.class_columns):
            value = cell_text(cells[self.column[name]])
            state = STATES.get(value.lower()) if value else empty
            if state is None:
                where = f"{self.table.where(line)}, column {name}"
                todo = "write 1, 0, or -1 for unknown"
                self.problems.append(Problem(f"{value!r} in the column of a class", where, todo))
            elif state > 0:
                known.append(c)
            elif state < 0:
                unsure.append(c)
                self._has_empty |= not value
        self._has_absent |= len(known) + len(unsure) < len(self.class_columns)
        return known, unsure

    def _text(self, name: str, value: str, line: int) -> str | None:
        if name == "split" and value and value not in SPLITS:
            close = [split for split in SPLITS if value.lower().startswith(split)]
            close = close or difflib.get_close_matches(value.lower(), SPLITS, n=1)
            todo = f"did you mean {close[0]!r}? " if close else ""
            todo += "allowed are train, val, test, or nothing"
            self.problems.append(Problem(f"split = {value!r}", self.table.where(line), todo))
            return None
        if name == "sha256" and value and self.settings.images == "listed":
            if not _SHA256.fullmatch(value):
                todo = "write the 64 hexadecimal digits that sha256sum prints, or nothing"
                self.problems.append(Problem(f"sha256 = {value[:70]!r}", self.table.where(line), todo))
            return value.lower()
        is_name = name in ("group", "slice", "sequence")
        if is_name and value.casefold() in EMPTY_CELLS and value not in self._empty:
            self._empty.add(value)
            what = f"{name} = {value!r} is how programs write an empty cell"
            todo = "leave the cell empty, or give it a name of its own"
            self.problems.append(Problem(what, self.table.where(line), todo))
        return value or None

    def _size(self, name: str, value: str, line: int) -> int | None:
        if not value:
            return None
        if not (value.isascii() and value.isdigit() and len(value) <= 10) or not 0 < int(value) < 2**31:
            todo = "write a number of pixels, or nothing"
            self.problems.append(Problem(f"{name} = {value[:70]!r}", self.table.where(line), todo))
            return None
        return int(value)


def _refuse_classes_in_other_columns(names: list[str], settings: Ingest) -> None:
    """Raise DataError where a class has the name of a column that says something else."""
    todo = "give the class another name in both; its prompt_name may keep the word"
    taken = [name for name in names if name in LABEL_COLUMNS]
    if taken:
        what = "class {!r} has the name of a column that does not hold a class"
        raise DataError(problems=[Problem(what.format(name), settings.classes, todo) for name in taken])


def _missing_labels(table: Table, listed: Classes | None, listed_in: str) -> list[Problem]:
    """What is missing where a table has no column ``labels``: that, or the columns of classes."""
    header, where, columns = table.columns, table.where(1), {*table.header}
    names = [name for name in listed.names if name not in columns] if listed else []
    accents = [accents_advice(name, table.header, listed_in) for name in names[:SHOWN]]  # slow: only for what is shown
    if listed is None or (columns.isdisjoint(listed.names) and not any(accents)):
        close = similar_columns("labels", table.header)
        todo = f"rename column {close[0]!r} to 'labels'" if close else "add a column 'labels'"
        classes = f"list the classes in {listed_in} (column name)" if listed is None else f"name them as in {listed_in}"
        todo += f"; or, with one column a class, {classes}"
        todo += "" if "path" in columns else f"; {EXPORTS}"
        return [Problem(f"column 'labels' is missing: {header}", where, todo)]
    todo = f"add the column, correct the name in {listed_in}, or take the class out of it"
    advice = zip_longest(names, accents)
    return [Problem(f"class {name!r} has no column: {header}", where, other or todo) for name, other in advice]
