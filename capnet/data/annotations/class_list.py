"""classes.csv: the classes, their order, what the text tower reads, and which must never get worse; edited by
people.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from capnet.contracts import Classes, make_classes
from capnet.data.annotations.paths import DataFolder
from capnet.data.annotations.tables import cell_text, open_table, texts_of
from capnet.errors import SHOWN, DataError, Problem, some

if TYPE_CHECKING:
    from capnet.config import Ingest

CLASS_COLUMNS = ("name", "prompt_name", "critical")
# names of columns that number the classes, without what is no letter: "ClassId", "Class ID", "class_id"
THINGS = ("", "class", "cls", "label", "category", "cat", "target")
NUMBERS = {thing + end for thing in THINGS for end in ("id", "index", "idx", "number", "no", "nr", "code")}
NUMBERS |= {"class", "label", "target"}
DIGITS = 9  # of a number that stands for a class
YES, NO = ("1", "true", "yes"), ("", "0", "false", "no")
MOST_CLASSES = 2**15 - 1  # class indices are int16


def read_classes_csv(path: Path, separator: str) -> tuple[Classes, list[Problem], str]:
    """The classes of classes.csv in its order, every mistake in it, and the column that numbers the classes in another
    way than by their rows from 0 (empty: none does).
    """
    table = open_table(path, CLASS_COLUMNS, ("name",))
    problems = table.problems
    differs = {column: False for column, name in enumerate(table.header) if _letters(name) in NUMBERS}
    names, prompt_names, critical_names = list[str](), dict[str, str](), list[str]()
    first: dict[str, int] = {}
    for line, cells in table:
        if len(names) == MOST_CLASSES:
            problems.append(Problem(f"more than {MOST_CLASSES:,} rows", str(path), "remove the others"))
            break
        row = texts_of(table, cells, CLASS_COLUMNS)
        name, critical, where = row["name"], row.get("critical", "").lower(), table.where(line)
        if not name:
            problems.append(Problem("a class without a name", where, "write its name, or remove the row"))
        elif separator in name:
            todo = f"rename the class, or choose another ingest.separator (it is {separator!r})"
            problems.append(Problem(f"class name {name!r} contains the separator of labels", where, todo))
        elif name in first:
            first_where = f"{where}, first in row {first[name]}"
            problems.append(Problem(f"class {name!r} appears twice", first_where, "remove one"))
        if critical not in (*YES, *NO):
            problems.append(Problem(f"critical = {row['critical']!r}", where, "write true or false"))
        first.setdefault(name, line)
        for column in [*differs]:
            number = cell_text(cells[column])
            if number.isdecimal() and len(number) <= DIGITS:
                differs[column] |= int(number) != len(names)
            else:
                del differs[column]
        names.append(name)
        if row.get("prompt_name"):
            prompt_names[name] = row["prompt_name"]
        if critical in YES:
            critical_names.append(name)
    if not names and not problems:
        what, todo = "no classes: there is a header and nothing below it", "write one row a class, or remove the file"
        problems.append(Problem(what, str(path), todo))
    other = next((table.header[column] for column, is_other in differs.items() if is_other), "")
    return make_classes(names, prompt_names, critical_names), problems, other


def _letters(name: str) -> str:
    return "".join(filter(str.isalpha, name.casefold()))


def separator_problems(names: Sequence[str], separator: str, where: str) -> list[Problem]:
    """Names of classes that no cell of labels can hold: it would be read as several labels.

    Args:
        names: of classes.
        separator: setting ``ingest.separator``.
        where: they stand, for messages.
    """
    todo = "set ingest.separator to a character that no class has"
    what = f"contains the separator of labels, {separator!r}"
    return [Problem(f"class {name!r} {what}", where, todo) for name in names if separator in name]


def published_classes(folder: DataFolder, names: Sequence[str], settings: Ingest) -> tuple[Classes, list[Problem]]:
    """The classes of a published format: classes.csv, where there is one, may add prompt names and ``critical``.

    The order and the names stay the published ones: benchmarks are compared by them.

    Args:
        folder: the data folder.
        names: the classes in the published order.
        settings: the section ``ingest``.

    Returns:
        The classes, and every mistake in the names and in classes.csv.

    Raises:
        DataError: classes.csv cannot be read, or there are more than MOST_CLASSES.
    """
    mistakes = []
    for name, number in Counter(names).items():
        if not name.strip():
            mistakes.append(Problem("a class without a name", "the classes", "write its name"))
        elif number > 1:
            mistakes.append(Problem(f"class {name!r} appears twice", "the classes", "give each a name of its own"))
    if len(names) > MOST_CLASSES:
        what, todo = f"{len(names):,} classes, at most {MOST_CLASSES:,} are possible", "are these names of classes?"
        raise DataError(problems=[*mistakes, Problem(what, "the classes", todo)])
    if not settings.classes or not folder.has(settings.classes):
        return make_classes(names), mistakes
    path = folder.path(settings.classes)
    listed, problems, _ = read_classes_csv(path, settings.separator)
    problems = [*mistakes, *problems]
    if not listed:
        raise DataError(problems=problems)
    known = set(names)
    for name in listed.names:
        if name and name not in known:
            # slow: only for what is shown
            close = difflib.get_close_matches(name, names, n=1, cutoff=0.6) if len(problems) < SHOWN else []
            todo = f"did you mean {close[0]!r}?" if close else f"the classes are: {some(names, SHOWN)}"
            problems.append(Problem(f"class {name!r} is not in the annotations", str(path), todo))
    prompt_names = {item.name: item.prompt_name for item in listed.items}
    return make_classes(names, prompt_names, [item.name for item in listed.items if item.critical]), problems
