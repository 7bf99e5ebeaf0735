"""labels.csv and images/: the simplest way to write multi-label pictures down, with an optional classes.csv that people edit.

labels.csv has one row a picture: ``path`` (relative to the data folder) and ``labels``, and where wanted ``unknown``
(labels whose state is not known), ``image_id``, ``split`` (train, val or test), ``group`` and ``slice``. Labels are class
names with a separator between them, or 0-based indices into classes.csv. classes.csv has ``name``, and where wanted
``prompt_name`` and ``critical``. Other columns are left alone.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath

from capnet.config import Ingest
from capnet.contracts import SIDES, Classes, make_classes
from capnet.data.formats import Annotations
from capnet.data.tables import Table, read_table
from capnet.errors import DataError, Problem

LABEL_COLUMNS = ("path", "labels", "unknown", "image_id", "split", "group", "slice")
CLASS_COLUMNS = ("name", "prompt_name", "critical")
YES, NO = ("1", "true", "yes"), ("", "0", "false", "no")
MOST_CLASSES = 2**15 - 1  # class indices are int16
ROWS_NAMED = 5


def read(root: Path, settings: Ingest) -> Annotations:
    """Rows in the table's order, the classes, and every mistake in labels.csv and classes.csv, each with its row.

    Raises DataError where there is nothing to go on with: no table, or no header or class names that can be read.
    """
    import pandas as pd

    table = read_table(find(root, settings), LABEL_COLUMNS, ("path", "labels"))
    problems = list(table.problems)
    listed = None
    if (root / settings.classes).is_file():
        listed, mistakes = read_classes_csv(root / settings.classes, settings.separator)
        problems.extend(mistakes)
    if not table.rows and not problems:
        problems.append(Problem("no rows: there is a header and nothing below it", str(table.path), "write one row a picture"))
    if not table.rows or listed == []:
        raise DataError(problems=problems)
    tokens = {column: [_tokens(row.get(column, ""), settings.separator) for row in table.rows] for column in ("labels", "unknown")}
    classes, index, mistakes = _classes(table, tokens, listed, settings)
    problems.extend(mistakes)
    known, unknown = (_to_indices(table, column, tokens[column], index, settings, problems) for column in ("labels", "unknown"))
    for number, (has, unsure) in enumerate(zip(known, unknown, strict=True)):
        for c in sorted(set(has) & set(unsure)):
            what = f"label {classes.names[c]!r} is both in labels and in unknown"
            problems.append(Problem(what, table.where(number), "keep it in one of the two columns"))
    paths, ids, usable = _paths_and_ids(table, problems)
    given = [_given_split(row.get("split", ""), table.where(number), problems) for number, row in enumerate(table.rows)]
    columns = {"image_id": ids, "path": paths, "labels": known, "unknown": unknown, "given_split": given}
    columns |= {name: [row.get(name) or None for row in table.rows] for name in ("group", "slice")}
    columns["where"] = [table.where(number) for number in range(len(table.rows))]
    return Annotations(pd.DataFrame(columns)[usable].reset_index(drop=True), classes, problems)


def find(root: Path, settings: Ingest) -> Path:
    """The label table; raises DataError where the folder or the table is not there."""
    table = root / settings.labels
    if table.is_file():
        return table
    entries = sorted(entry.name for entry in root.iterdir()) if root.is_dir() else []
    todo = f"write {settings.labels} (path, labels) there, correct data.root, or draw the demo pictures: capnet demo-data --out data"
    if not entries:
        raise DataError("the data folder is empty" if root.is_dir() else "there is no data folder", str(root), todo)
    close = difflib.get_close_matches(settings.labels.lower(), [name.lower() for name in entries], n=1, cutoff=0.7)
    hint = next((f"rename {name} to {settings.labels}, or set ingest.labels: {name}" for name in entries if close and name.lower() == close[0]), todo)
    raise DataError(f"the data folder has no {settings.labels}", str(root), hint)


def read_classes_csv(path: Path, separator: str) -> tuple[list[tuple[str, str, bool]], list[Problem]]:
    """Rows (name, prompt_name, critical) of classes.csv in its order, and every mistake in it."""
    table = read_table(path, CLASS_COLUMNS, ("name",))
    problems = list(table.problems)
    rows: list[tuple[str, str, bool]] = []
    first: dict[str, int] = {}
    for number, row in enumerate(table.rows):
        name, critical = row["name"], row.get("critical", "").lower()
        if not name:
            problems.append(Problem("a class without a name", table.where(number), "write its name, or remove the row"))
        elif separator in name:
            todo = f"rename the class, or choose another ingest.separator (it is {separator!r})"
            problems.append(Problem(f"class name {name!r} contains the separator of labels", table.where(number), todo))
        elif name in first:
            problems.append(Problem(f"class {name!r} is there twice", f"{table.where(number)}, first in row {first[name]}", "remove one"))
        if critical not in (*YES, *NO):
            problems.append(Problem(f"critical = {row['critical']!r}", table.where(number), "write true or false"))
        first.setdefault(name, table.lines[number])
        rows.append((name, row.get("prompt_name", ""), critical in YES))
    if not table.rows and not problems:
        problems.append(Problem("no classes: there is a header and nothing below it", str(path), "write one row a class, or remove the file"))
    return rows, problems


def _tokens(cell: str, separator: str) -> list[str]:
    return [token for token in (part.strip() for part in cell.split(separator)) if token]


def _classes(
    table: Table, tokens: Mapping[str, list[list[str]]], listed: list[tuple[str, str, bool]] | None, settings: Ingest
) -> tuple[Classes, dict[str, int], list[Problem]]:
    """The classes, the index that each label token stands for, and what is wrong with the list as a whole.

    Tokens are read as indices only where classes.csv is there, every token is a whole number and no class is called by one.
    """
    used = {token for column in tokens.values() for row in column for token in row}
    numbers = bool(used) and all(token.isascii() and token.isdigit() for token in used)
    names = sorted(used) if listed is None else [name for name, _, _ in listed]
    problems = []
    if listed is None and numbers:
        what = f"labels are numbers ({', '.join(names[:3])}, ...), and there is no {settings.classes} that says what they mean"
        problems.append(Problem(what, str(table.path), f"write {settings.classes} with the column name, one row a class in the order of the numbers"))
    elif not names:
        todo = f"write labels in {settings.labels}, or the classes in {settings.classes}"
        problems.append(Problem("no row has a label, so there are no classes", str(table.path), todo))
    if listed is None:
        spellings: dict[str, list[str]] = {}
        for name in names:
            spellings.setdefault(name.casefold(), []).append(name)
        for alike in spellings.values():
            if len(alike) > 1:
                todo = f"write one of them everywhere, or list both in {settings.classes}"
                problems.append(Problem(f"labels {' and '.join(map(repr, alike))} differ only in upper and lower case", str(table.path), todo))
    if len(names) > MOST_CLASSES:
        problems.append(
            Problem(f"{len(names)} classes, at most {MOST_CLASSES} are possible", str(table.path), f"is ingest.separator = {settings.separator!r} right?")
        )
    classes = make_classes(names, {name: prompt for name, prompt, _ in listed or [] if prompt}, [name for name, _, critical in listed or [] if critical])
    if listed is not None and numbers and not any(name.isascii() and name.isdigit() for name in names):
        return classes, {token: int(token) for token in used if int(token) < len(names)}, problems
    return classes, {name: c for c, name in enumerate(names)}, problems


def _to_indices(table: Table, column: str, tokens: list[list[str]], index: Mapping[str, int], settings: Ingest, problems: list[Problem]) -> list[list[int]]:
    """Ascending class indices per row; each label that is no class becomes one problem with the rows that have it."""
    strange: dict[str, list[int]] = {}
    for number, row in enumerate(tokens):
        for token in row:
            if token not in index:
                strange.setdefault(token, []).append(table.lines[number])
    for token, lines in strange.items():
        more = f" and {len(lines) - ROWS_NAMED} more" if len(lines) > ROWS_NAMED else ""
        where = f"{table.path.name} row {', '.join(map(str, lines[:ROWS_NAMED]))}{more}, column {column}"
        problems.append(Problem(f"label {token!r} is not in {settings.classes}", where, _label_advice(token, list(index), settings)))
    return [sorted({index[token] for token in row if token in index}) for row in tokens]


def _label_advice(token: str, names: list[str], settings: Ingest) -> str:
    if token.isdigit():
        return f"indices start at 0 and end at the number of rows of {settings.classes} less 1"
    lower = {name.lower(): name for name in names}
    close = difflib.get_close_matches(token.lower(), list(lower), n=1, cutoff=0.6)
    separated = next((mark for mark in ";,|/" if mark in token), "")
    if separated:
        return f"labels are separated by {settings.separator!r}: set ingest.separator to {separated!r}, or rewrite the cell"
    return (
        f"did you mean {lower[close[0]]!r}? else add the class to {settings.classes}" if close else f"add the class to {settings.classes}, or correct the label"
    )


def _paths_and_ids(table: Table, problems: list[Problem]) -> tuple[list[str], list[str], list[bool]]:
    """Normalised relative paths, image ids (both must be unique), and whether a row's path may be opened."""
    paths, ids, usable = [], [], []
    first_path: dict[str, int] = {}
    first_id: dict[str, int] = {}
    for number, row in enumerate(table.rows):
        written = row["path"]
        path = PurePosixPath(written)
        fault = ""
        if not written:
            fault = "the path is empty"
        elif path.is_absolute() or PureWindowsPath(written).is_absolute() or "://" in written:
            fault = f"path {written!r} is absolute"
        elif ".." in path.parts:
            fault = f"path {written!r} leaves the data folder"
        elif "\\" in written:
            fault = f"path {written!r} has backslashes"
        if fault:
            problems.append(Problem(fault, table.where(number), "write the path relative to the data folder, with / between folders"))
        elif str(path) in first_path:
            where = f"{table.where(number)}, first in row {first_path[str(path)]}"
            problems.append(Problem(f"path {str(path)!r} is there twice", where, "write one row a picture, with all its labels"))
        image_id = row.get("image_id") or str(path.with_suffix("") if path.name else path)
        if not fault and image_id in first_id and str(path) not in first_path:
            todo = "give them different ids in the column image_id (without it, the id is the path without its suffix)"
            problems.append(Problem(f"image id {image_id!r} is there twice", f"{table.where(number)}, first in row {first_id[image_id]}", todo))
        first_path.setdefault(str(path), table.lines[number])
        first_id.setdefault(image_id, table.lines[number])
        paths.append(str(path))
        ids.append(image_id)
        usable.append(not fault)
    return paths, ids, usable


def _given_split(value: str, where: str, problems: list[Problem]) -> str | None:
    if value and value not in SIDES:
        close = difflib.get_close_matches(value.lower(), SIDES, n=1, cutoff=0.4)
        todo = f"did you mean {close[0]!r}? " if close else ""
        problems.append(Problem(f"split = {value!r}", where, f"{todo}allowed are train, val, test, or nothing"))
    return value or None
