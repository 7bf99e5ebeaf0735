"""corrections.csv: single labels that people corrected after a review, laid over annotations of any format."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from capnet.data.annotations.paths import normal_path
from capnet.data.annotations.rows import Annotations
from capnet.data.annotations.tables import open_table, texts_of
from capnet.errors import Problem, Problems

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("path", "class", "label")
LABELS = ("yes", "no", "unknown")
MOST_CORRECTIONS = 500_000  # labels; people look at 5,000 in a review at most
Corrections = dict[tuple[str, str], str]  # yes, no or unknown, by path of the image and name of the class


def read_corrections(path: Path) -> tuple[Corrections, dict[tuple[str, str], str], Problems]:
    """Read corrections; further columns, and rows without a label, are passed over.

    Args:
        path: the table; there are no corrections where there is no such file.

    Returns:
        The labels; for each the name of its row; and every mistake.

    Raises:
        DataError: the rest of the table cannot be read.
    """
    corrections: Corrections = {}
    where: dict[tuple[str, str], str] = {}
    if not os.path.lexists(path):  # a link that leads nowhere is a mistake
        return corrections, where, Problems()
    table = open_table(path, COLUMNS, COLUMNS)
    for line, cells in table:
        row = texts_of(table, cells, COLUMNS)
        label = row["label"].lower()
        if not label:
            continue
        key = (normal_path(row["path"]), row["class"])
        if label not in LABELS:
            todo = f"write {', '.join(LABELS)}, or nothing"
            table.problems.append(Problem(f"label {row['label']!r}", table.where(line), todo))
        elif corrections.get(key, label) != label:
            what = f"{row['class']!r} of {row['path']!r} is {label} here and {corrections[key]} in {where[key]}"
            table.problems.append(Problem(what, table.where(line), "keep one of the two rows"))
        else:
            corrections[key], where[key] = label, table.where(line)
        if len(corrections) > MOST_CORRECTIONS:
            what = f"more than {MOST_CORRECTIONS:,} corrections"
            table.problems.append(Problem(what, table.where(line), "correct the annotations themselves"))
            break
    return corrections, where, table.problems


def other_names(names: Iterable[str], setting: str) -> list[str]:
    """Files that look like a table and are called otherwise, as browsers and spreadsheets call a second one.

    Args:
        names: of the files in the data folder.
        setting: the table's name: ``ingest.corrections`` or ``ingest.added``, which may be "".
    """
    stem = Path(setting).stem.lower()
    if not stem:
        return []
    files = [name for name in names if name != setting and Path(name).suffix]
    return [name for name in files if name.lower().startswith(stem)]


def apply_corrections(annotations: Annotations, path: Path) -> tuple[int, Problems]:
    """Change labels of ``annotations`` to what people corrected.

    Args:
        annotations: changed in place.
        path: as in ``read_corrections``.

    Returns:
        How many labels are others now, and every mistake of the table.
    """
    corrections, where, problems = read_corrections(path)
    rows, numbers = annotations.rows, {name: c for c, name in enumerate(annotations.classes.names)}
    position = {name: row for row, name in enumerate(rows["path"])} if corrections else {}
    of_row: dict[int, dict[int, str]] = {}
    composed, composed_classes = (
        {unicodedata.normalize("NFC", name) for name in names if not name.isascii()} for names in (position, numbers)
    )
    for key, label in corrections.items():
        image, name = key
        if image not in position or name not in numbers:
            what, todo = f"class {name!r}", "correct the name, or remove the row"
            if image in position:
                todo += " (a new class is listed in the annotations first: for a table of your own in classes.csv)"
                if unicodedata.normalize("NFC", name) in composed_classes:
                    todo = "write its accents in the Unicode form of the annotations: copy the name from there"
            else:
                what = f"image {image!r}"
                todo += " (an image without any annotation: capnet label)"
                if unicodedata.normalize("NFC", image) in composed:
                    todo = "write its accents in the Unicode form of the annotations: copy the path from there"
            problems.append(Problem(f"{what} is not in the annotations", where[key], todo))
            continue
        of_row.setdefault(position[image], {})[numbers[name]] = label
    return _change(rows, of_row), problems


def _change(rows: pd.DataFrame, of_row: Mapping[int, Mapping[int, str]]) -> int:
    """Write corrected labels, by row and class, into the rows; how many are others now. A row at a time: all of them
    as sets could fill the memory.
    """
    changed = 0
    columns = {name: rows[name].to_numpy().copy() for name in ("labels", "unknown")} if of_row else {}
    for row, labels in of_row.items():
        before = {name: set(map(int, column[row])) for name, column in columns.items()}
        for name, state in (("labels", "yes"), ("unknown", "unknown")):
            now = {c for c, label in labels.items() if label == state}
            columns[name][row] = sorted(before[name] - labels.keys() | now)
        changed += sum(
            (c in before["labels"], c in before["unknown"]) != (label == "yes", label == "unknown")
            for c, label in labels.items()
        )
    if changed:
        for name, column in columns.items():
            rows[name] = column
    return changed
