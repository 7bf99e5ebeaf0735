"""labels.csv and images/: the simplest way to write multi-label pictures down, with an optional classes.csv that people
edit.

The table (CSV, gzipped CSV or Parquet) has one row a picture: ``path`` (relative to the data folder) and ``labels``,
and where wanted ``unknown`` (labels whose state is not known), ``image_id``, ``split`` (train, val or test), ``group``,
``slice``, ``sequence`` (frames of one burst), ``width``, ``height`` and ``sha256``. Labels are class names with a
separator between them, or 0-based indices into classes.csv. Without the column ``labels``, every class of classes.csv
has a column of its own with 1, 0, or -1 for unknown. Other columns are left alone.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from array import array
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capnet.config import Ingest
from capnet.contracts import SPLITS, Classes, make_classes
from capnet.data.annotations import Annotations
from capnet.data.annotations.class_list import MOST_CLASSES, Listed, from_listed, read_classes_csv
from capnet.data.annotations.label_lists import LabelLists
from capnet.data.annotations.paths import TODO, normal_path, path_fault, without_suffix
from capnet.data.annotations.tables import Table, open_table
from capnet.errors import DataError, Problem

if TYPE_CHECKING:
    import pandas as pd

TEXT_COLUMNS = ("image_id", "split", "group", "slice", "sequence", "sha256")
SIZE_COLUMNS = ("width", "height")
LABEL_COLUMNS = ("path", "labels", "unknown", *TEXT_COLUMNS, *SIZE_COLUMNS)
STATES = {"1": 1, "1.0": 1, "0": 0, "0.0": 0, "-1": -1, "-1.0": -1, "true": 1, "false": 0}
LOST = {"nan", "none", "null", "nat", "<na>"}  # how programs write a cell that was empty
OTHER_SEPARATORS = ";,|/"
SPREADSHEETS = (".xlsx", ".xls", ".ods", ".numbers")
ROWS_NAMED = 5
_SHA256 = re.compile("[0-9a-fA-F]+")


def read(root: Path, settings: Ingest) -> Annotations:
    """Rows in the table's order, the classes, and every mistake in the label table and classes.csv, each with its row.

    Raises DataError where there is nothing to go on with: no table, or no header or class names that can be read.
    """
    import pandas as pd

    path = find(root, settings)
    listed, problems = (
        read_classes_csv(root / settings.classes, settings.separator)
        if (root / settings.classes).is_file()
        else (None, [])
    )
    table = open_table(path, LABEL_COLUMNS, ("path",), [name for name, _, _ in listed or []], ("labels",))
    if not table.header or table.problems or listed == []:
        raise DataError(problems=[*table.problems, *problems])
    wide = "labels" not in table.header
    if wide:
        _refuse_a_table_without_labels(table, listed, settings)
    rows = _Rows(table, settings, [name for name, _, _ in listed or []] if wide else [])
    rows.read()
    problems = [*table.problems, *problems, *rows.problems]
    if not rows.lines:
        if not problems:
            problems.append(
                Problem("no rows: there is a header and nothing below it", str(path), "write one row a picture")
            )
        raise DataError(problems=problems)
    classes, index, mistakes = _classes(table, rows.tokens, listed, settings)
    problems.extend(mistakes)
    columns = {name: _to_indices(table, name, rows, index, settings, problems) for name in ("labels", "unknown")}
    _refuse_known_and_unknown(table, columns, rows, classes, problems)
    frame = pd.DataFrame({"image_id": rows.text["image_id"], "path": rows.paths, **columns})
    _refuse_repetitions(frame, table, rows, problems)
    for name in ("group", "slice", "sequence", "sha256"):
        if name in ("group", "slice") or name in table.header:
            frame[name] = pd.Series(rows.text[name], dtype=object)
    frame["given_split"] = pd.Series(rows.text["split"], dtype=object)
    for name in SIZE_COLUMNS:
        if name in table.header:
            frame[name] = pd.array(rows.sizes[name], dtype="Int32")
    frame["where"] = rows.lines
    usable = pd.Series([path != "" for path in rows.paths])
    return Annotations(frame[usable].reset_index(drop=True), classes, problems, f"{path.name} row {{}}")


def find(root: Path, settings: Ingest) -> Path:
    """The label table; raises DataError where the folder or the table is not there."""
    table = root / settings.labels
    if table.is_file():
        return table
    if table.is_dir():
        raise DataError(
            f"ingest.labels = {settings.labels!r} is a folder", str(table), "name the label table, such as labels.csv"
        )
    entries = sorted(entry.name for entry in root.iterdir()) if root.is_dir() else []
    todo = (
        f"write {settings.labels} (path, labels) there, correct data.root, or draw the demo pictures: capnet demo-data"
        " --out data"
    )
    if not entries:
        raise DataError("the data folder is empty" if root.is_dir() else "there is no data folder", str(root), todo)
    close = difflib.get_close_matches(settings.labels.lower(), [name.lower() for name in entries], n=1, cutoff=0.7)
    found = next((name for name in entries if close and name.lower() == close[0]), "")
    hint = f"rename {found} to {settings.labels}, or set ingest.labels: {found}" if found else todo
    if found.lower().endswith(SPREADSHEETS):
        hint = f"save {found} as {settings.labels} in the spreadsheet program (CSV UTF-8, comma separated)"
    raise DataError(f"the data folder has no {settings.labels}", str(root), hint)


class _Rows:
    """The table row by row into columns that a million rows fit into; ``tokens`` are labels by the code that stands for
    them.
    """

    def __init__(self, table: Table, settings: Ingest, class_columns: list[str]) -> None:
        self.table, self.settings, self.class_columns = table, settings, class_columns
        self.tokens: dict[str, int] = {name: number for number, name in enumerate(class_columns)}
        self.lists = {"labels": LabelLists(), "unknown": LabelLists()}
        self.lines = array("q")
        self.paths: list[str] = []  # empty where the row's path cannot be used
        self.text: dict[str, list[str | None]] = {name: [] for name in TEXT_COLUMNS}
        self.sizes: dict[str, list[int | None]] = {name: [] for name in SIZE_COLUMNS}
        self.problems: list[Problem] = []
        self._shared: dict[str, str] = {}  # one string for each group, slice and split, however many rows have it

    def read(self) -> None:
        place = {name: number for number, name in enumerate(self.table.header)}
        text = [(name, place[name]) for name in TEXT_COLUMNS[1:] if name in place]
        absent = [self.text[name] for name in TEXT_COLUMNS[1:] if name not in place]
        sizes = [(name, place[name]) for name in SIZE_COLUMNS if name in place]
        states = [place[name] for name in self.class_columns]
        for line, cells in self.table:
            self.lines.append(line)
            self._path(
                line, _text(cells[place["path"]]), _text(cells[place["image_id"]]) if "image_id" in place else ""
            )
            for name, number in text:
                value = _text(cells[number])
                if name == "split" and value and value not in SPLITS:
                    self._wrong_split(value, line)
                if name == "sha256" and value and self.settings.pictures == "listed":
                    value = self._hash(value, line)
                if value not in self._shared and value.casefold() in LOST and name in ("group", "slice", "sequence"):
                    todo = "leave the cell empty, or give it a name of its own"
                    self.problems.append(
                        Problem(f"{name} = {value!r} is how programs write an empty cell", self.table.where(line), todo)
                    )
                self.text[name].append(self._shared.setdefault(value, value) or None)
            for column in absent:
                column.append(None)
            for name, number in sizes:
                self.sizes[name].append(self._size(name, cells[number], line))
            if states:
                self._states([cells[number] for number in states], line)
            else:
                self.lists["labels"].append(self._codes(cells[place["labels"]]))
                self.lists["unknown"].append(self._codes(cells[place["unknown"]]) if "unknown" in place else ())

    def _codes(self, cell: Any) -> list[int]:
        """Codes of a cell of labels: text with separators, or a list or a number as Parquet has them."""
        if not cell and (cell is None or isinstance(cell, str)):
            return []
        parts = cell if isinstance(cell, list) else _text(cell).split(self.settings.separator)
        return [
            self.tokens.setdefault(token, len(self.tokens))
            for token in (_text(part).strip() for part in parts)
            if token
        ]

    def _states(self, cells: list[Any], line: int) -> None:
        """Labels and unknown from one cell a class: 1, 0, or -1 and (by setting) empty for unknown."""
        known, unsure = [], []
        empty = -1 if self.settings.empty_cell == "unknown" else 0
        for c, cell in enumerate(cells):
            value = _text(cell)
            state = STATES.get(value.lower()) if value else empty
            if state is None:
                where = f"{self.table.where(line)}, column {self.class_columns[c]}"
                self.problems.append(
                    Problem(f"{value!r} in the column of a class", where, "write 1, 0, or -1 for unknown")
                )
            elif state > 0:
                known.append(c)
            elif state < 0:
                unsure.append(c)
        self.lists["labels"].append(known)
        self.lists["unknown"].append(unsure)

    def _path(self, line: int, written: str, image_id: str) -> None:
        fault = path_fault(written)
        if fault:
            self.problems.append(Problem(fault, self.table.where(line), TODO))
        path = "" if fault else normal_path(written)
        self.paths.append(path)
        self.text["image_id"].append(image_id or without_suffix(path))

    def _size(self, name: str, cell: Any, line: int) -> int | None:
        value = _text(cell)
        if not value:
            return None
        if not (value.isascii() and value.isdigit()) or not 0 < int(value) < 2**31:
            self.problems.append(
                Problem(f"{name} = {value!r}", self.table.where(line), "write a number of pixels, or nothing")
            )
            return None
        return int(value)

    def _hash(self, value: str, line: int) -> str:
        if not _SHA256.fullmatch(value):
            self.problems.append(
                Problem(
                    f"sha256 = {value[:70]!r}",
                    self.table.where(line),
                    "write the hexadecimal digits that sha256sum prints, or nothing",
                )
            )
        return value.lower()

    def _wrong_split(self, value: str, line: int) -> None:
        close = difflib.get_close_matches(value.lower(), SPLITS, n=1, cutoff=0.4)
        todo = f"did you mean {close[0]!r}? " if close else ""
        self.problems.append(
            Problem(f"split = {value!r}", self.table.where(line), f"{todo}allowed are train, val, test, or nothing")
        )


def _text(cell: Any) -> str:
    """A cell as text; a number without a fraction as an integer, whatever its type in a Parquet file."""
    if isinstance(cell, str):
        return cell
    if cell is None or cell != cell:
        return ""
    return str(int(cell)) if isinstance(cell, float | bool) and cell == int(cell) else str(cell)


def _refuse_a_table_without_labels(table: Table, listed: Listed | None, settings: Ingest) -> None:
    """Raise DataError unless the table has a column for every class of classes.csv."""
    found = f"found {', '.join(table.header[:30])}{', ...' if len(table.header) > 30 else ''}"
    where = f"{table.path.name} row 1"
    if listed is None or not {name for name, _, _ in listed} & set(table.header):
        close = difflib.get_close_matches("labels", table.header, n=1, cutoff=0.6)
        todo = f"rename column {close[0]!r} to 'labels'" if close else "add a column 'labels'"
        todo += f"; or, with one column a class, list the classes in {settings.classes} (column name)"
        raise DataError(f"column 'labels' is missing: {found}", where, todo)
    missing = [name for name, _, _ in listed if name not in table.header]
    if missing:
        todo = f"add the column, correct the name in {settings.classes}, or take the class out of it"
        raise DataError(problems=[Problem(f"class {name!r} has no column: {found}", where, todo) for name in missing])


def _classes(
    table: Table, tokens: Mapping[str, int], listed: Listed | None, settings: Ingest
) -> tuple[Classes, dict[str, int], list[Problem]]:
    """The classes, the index that each label token stands for, and what is wrong with the list as a whole.

    Tokens are read as indices only where classes.csv is there, every token is a whole number and no class is called by
    one.
    """
    numbers = bool(tokens) and all(token.isascii() and token.isdigit() for token in tokens)
    names = sorted(tokens) if listed is None else [name for name, _, _ in listed]
    problems = []
    if listed is None and numbers:
        what = (
            f"labels are numbers ({', '.join(names[:3])}, ...), and there is no {settings.classes} that says what they"
            " mean"
        )
        problems.append(
            Problem(
                what,
                str(table.path),
                f"write {settings.classes} with the column name, one row a class in the order of the numbers",
            )
        )
    elif not names:
        todo = f"write labels in {settings.labels}, or the classes in {settings.classes}"
        problems.append(Problem("no row has a label, so there are no classes", str(table.path), todo))
    if listed is None:
        for name in names:
            if name.casefold() in LOST:
                todo = f"leave the cell empty, or list the classes in {settings.classes} if it is one"
                problems.append(Problem(f"label {name!r} is how programs write an empty cell", str(table.path), todo))
            elif any(unicodedata.category(letter) == "Cc" for letter in name):
                problems.append(
                    Problem(f"label {name!r} has a control character", str(table.path), "correct the label")
                )
        problems.extend(_unseparated(table, names, settings))
        spellings: dict[str, list[str]] = {}
        for name in names:
            spellings.setdefault(name.casefold(), []).append(name)
        for alike in spellings.values():
            if len(alike) > 1:
                todo = f"write one of them everywhere, or list both in {settings.classes}"
                problems.append(
                    Problem(
                        f"labels {' and '.join(map(repr, alike))} differ only in upper and lower case",
                        str(table.path),
                        todo,
                    )
                )
    if len(names) > MOST_CLASSES:
        todo = f"is ingest.separator = {settings.separator!r} right?"
        problems.append(Problem(f"{len(names)} classes, at most {MOST_CLASSES} are possible", str(table.path), todo))
    classes = make_classes(names) if listed is None else from_listed(listed)
    if listed is not None and numbers and not any(name.isascii() and name.isdigit() for name in names):
        return classes, {token: int(token) for token in tokens if int(token) < len(names)}, problems
    return classes, {name: c for c, name in enumerate(names)}, problems


def _unseparated(table: Table, names: list[str], settings: Ingest) -> list[Problem]:
    """Labels such as 'fox; deer' where 'fox' and 'deer' are labels, too: the table separates by another character."""
    known = set(names)
    problems = []
    for mark in OTHER_SEPARATORS:
        joined = [name for name in names if mark in name and {part.strip() for part in name.split(mark)} <= known]
        if joined:
            more = f" and {len(joined) - 1} more" if len(joined) > 1 else ""
            what = f"label {joined[0]!r}{more}: its parts are labels, too, so {mark!r} seems to stand between labels"
            todo = (
                f"set ingest.separator to {mark!r}, or rewrite the cells; where it is one class, list all in"
                f" {settings.classes}"
            )
            problems.append(Problem(what, str(table.path), todo))
    return problems


def _to_indices(
    table: Table, column: str, rows: _Rows, index: Mapping[str, int], settings: Ingest, problems: list[Problem]
) -> pd.Series:
    """Ascending class indices per row; each label that is no class becomes one problem with the rows that have it."""
    import numpy as np

    lists = rows.lists[column]
    names = list(rows.tokens)
    classes = np.array([index.get(name, -1) for name in names], dtype=np.int64)
    codes = np.array(lists.codes, dtype=np.int64)
    strange = np.flatnonzero(classes[codes] < 0) if len(codes) else codes
    by_code: dict[int, list[int]] = {}
    for position, row in zip(strange.tolist(), lists.rows_of(strange).tolist(), strict=True):
        by_code.setdefault(int(codes[position]), []).append(rows.lines[row])
    for code, lines in by_code.items():
        more = f" and {len(lines) - ROWS_NAMED} more" if len(lines) > ROWS_NAMED else ""
        where = f"{table.path.name} row {', '.join(map(str, lines[:ROWS_NAMED]))}{more}, column {column}"
        text = next((name for name in names if not name.isdigit()), "")
        problems.append(
            Problem(
                f"label {names[code]!r} is not in {settings.classes}",
                where,
                _label_advice(names[code], list(index), settings, text),
            )
        )
    return lists.mapped(np.where(classes > MOST_CLASSES, -1, classes))


def _label_advice(token: str, names: list[str], settings: Ingest, text: str) -> str:
    """``text`` is a label of the table that is no number, if there is one: then none is read as an index."""
    if token.isdigit() and text:
        return (
            f"some labels are numbers and some are not, such as {text!r}: write names, or indices into"
            f" {settings.classes}, and not both"
        )
    if token.isdigit():
        return f"indices start at 0 and end at the number of rows of {settings.classes} less 1"
    lower = {name.lower(): name for name in names}
    close = difflib.get_close_matches(token.lower(), list(lower), n=1, cutoff=0.6)
    separated = next((mark for mark in OTHER_SEPARATORS if mark in token), "")
    if separated:
        return (
            f"labels are separated by {settings.separator!r}: set ingest.separator to {separated!r}, or rewrite the"
            " cell"
        )
    return (
        f"did you mean {lower[close[0]]!r}? else add the class to {settings.classes}"
        if close
        else f"add the class to {settings.classes}, or correct the label"
    )


def _refuse_known_and_unknown(
    table: Table, columns: Mapping[str, pd.Series], rows: _Rows, classes: Classes, problems: list[Problem]
) -> None:
    if not len(rows.lists["unknown"].codes):
        return
    for line, has, unsure in zip(rows.lines, columns["labels"], columns["unknown"], strict=True):
        if has and unsure:
            for c in sorted(set(has) & set(unsure)):
                what = f"label {classes.names[c]!r} is both in labels and in unknown"
                problems.append(Problem(what, table.where(line), "keep it in one of the two columns"))


def _refuse_repetitions(frame: pd.DataFrame, table: Table, rows: _Rows, problems: list[Problem]) -> None:
    """A path or an image id that is there twice."""

    def report(column: str, among: pd.Series, what: Callable[[str], str], todo: str) -> None:
        values = frame[column][among]
        first: dict[str, int] = {}
        for row, value in values[values.duplicated(keep=False)].items():
            line = rows.lines[int(str(row))]
            if value in first:
                problems.append(Problem(what(value), f"{table.where(line)}, first in row {first[value]}", todo))
            first.setdefault(value, line)

    usable = frame["path"] != ""
    report("path", usable, lambda path: f"path {path!r} is there twice", "write one row a picture, with all its labels")
    todo = "give them different ids in the column image_id (without it, the id is the path without its suffix)"
    report("image_id", usable & ~frame["path"].duplicated(), lambda image: f"image id {image!r} is there twice", todo)
