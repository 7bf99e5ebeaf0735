"""Which class each label of a table stands for, and what is wrong with labels that stand for none."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from capnet.contracts import Classes, make_classes
from capnet.data.annotations.class_list import DIGITS, MOST_CLASSES
from capnet.data.annotations.label_lists import LabelLists
from capnet.data.annotations.rows import RowList
from capnet.data.annotations.tables import Table
from capnet.errors import SHOWN, Problem, counted, some

if TYPE_CHECKING:
    from capnet.config import Ingest

EMPTY_CELLS = {"na", "n/a", "nan", "none", "null", "nat", "<na>"}  # how programs write a cell that was empty
# what people call an image without any class
NOTHING = {"blank", "empty", "nothing", "none", "none of the above", "no animal", "no finding", "no label", "no_label"}
# as Python, JSON and databases write one: ['a', 'b'], ('a',), {a,b}, {"choices": ["a", "b"]}
A_LIST = re.compile(r"""[\[({]\s*+(['"].*['"],?)?\s*+[\])}]|\[(?=.*[,:]).*\]|\{.*\}""", re.DOTALL)
# between labels in one cell, as YAML writes them; first what is in no name: a spreadsheet's line break (Alt and Enter)
OTHER_SEPARATORS = {"\n": '"\\n"', ";": "';'", ",": "','", "|": "'|'", "/": "'/'"}
ROWS_NAMED = 5
SEVERAL = 5  # labels made of other labels with a space between them
NUMBERS = re.compile(r"\d+")
COMPARED = 1000  # labels whose spelling is compared
# a label of at most so many images may be another one misspelt that so many times as many have
RARE, MUCH_MORE, NEARLY = 2, 10, 0.85


def classes_of(
    table: Table, tokens: Mapping[str, int], listed: Classes | None, settings: Ingest
) -> tuple[Classes, dict[str, int], list[Problem], list[str]]:
    """The classes that a table's labels stand for.

    Tokens are read as indices only where classes.csv is there, every token is a whole number and no class is called by
    one.

    Args:
        table: for messages.
        tokens: the different label texts of the table; their values are not read.
        listed: those of classes.csv; None where there is no such file.
        settings: the section ``ingest``.

    Returns:
        The classes, the index that each token stands for (tokens that stand for none are left out), what is wrong with
        the list as a whole, and warnings.
    """
    numbers = bool(tokens) and all(token.isascii() and token.isdigit() for token in tokens)
    classes = make_classes(sorted(tokens)) if listed is None else listed
    names = classes.names
    where = str(table.path)
    problems: list[Problem] = []
    warnings: list[str] = []
    if listed is None and numbers:
        meaning = f"there is no {settings.classes} that says what they mean"
        what = f"labels are numbers ({some(names, 3)}), and {meaning}"
        todo = f"write {settings.classes} with the column name, one row a class in the order of the numbers"
        problems.append(Problem(what, where, todo))
    elif not names:
        todo = f"write labels in {settings.labels}, or the classes in {settings.classes}"
        problems.append(Problem("no row has a label, so there are no classes", where, todo))
    if listed is None:
        mistakes, warnings = _doubtful_labels(table, names, settings)
        problems += mistakes
    if len(names) > MOST_CLASSES:
        todo = f"is ingest.separator = {settings.separator!r} right?"
        problems.append(Problem(f"{len(names)} classes, at most {MOST_CLASSES} are possible", where, todo))
    if listed is not None and numbers and not any(name.isascii() and name.isdigit() for name in names):
        within = (token for token in tokens if len(token) <= DIGITS and int(token) < len(names))
        return classes, {token: int(token) for token in within}, problems, warnings
    return classes, {name: c for c, name in enumerate(names)}, problems, warnings


def codes_of(
    table: Table, rows: RowList, tokens: list[str], index: Mapping[str, int], settings: Ingest, listed_in: str
) -> tuple[list[int], list[Problem]]:
    """Class index of every token, and each token that is no class as a problem with the rows that have it.

    Args:
        table: for messages.
        rows: whose labels and unknown are positions in ``tokens``.
        tokens: the different label texts, [code].
        index: from ``classes_of``.
        settings: the section ``ingest``.
        listed_in: what has the classes, for messages.

    Returns:
        Class indices [code], -1 for no class; and the problems.
    """
    import numpy as np

    classes = [index.get(token, -1) for token in tokens]
    text = next((token for token in tokens if not token.isdigit()), "")
    problems: list[Problem] = []
    for column, lists in (("labels", rows.labels), ("unknown", rows.unknown)):
        codes = np.array(lists.codes, dtype=np.int64)
        strange = np.flatnonzero(np.array(classes, dtype=np.int64)[codes] < 0) if len(codes) else codes
        lines: dict[int, list[int]] = {}
        for position, row in zip(strange.tolist(), lists.rows_of(strange).tolist(), strict=True):
            lines.setdefault(int(codes[position]), []).append(rows.columns["where"][row])
        for code, numbers in lines.items():
            where = f"{table.name} row {some(list(map(str, numbers)), ROWS_NAMED)}, column {column}"
            # slow: only for what is shown
            todo = _label_advice(tokens[code], list(index), settings, text, listed_in) if len(problems) < SHOWN else ""
            problems.append(Problem(f"label {tokens[code]!r} is not in {listed_in}", where, todo))
    return [-1 if c > MOST_CLASSES else c for c in classes], problems


def _doubtful_labels(table: Table, names: list[str], settings: Ingest) -> tuple[list[Problem], list[str]]:
    """Labels that hardly are classes, where no list of classes says that they are: as problems, or where that is less
    certain, as warnings.
    """
    where = str(table.path)
    problems: list[Problem] = []
    for name in names:
        if name.casefold() in EMPTY_CELLS:
            todo = f"leave the cell empty, or list the classes in {settings.classes} if it is one"
            problems.append(Problem(f"label {name!r} is how programs write an empty cell", where, todo))
    warnings: list[str] = []
    if lists := [repr(name) for name in names if A_LIST.fullmatch(name)]:
        what = f"label {some(lists, 1)} is a list as programs write it"
        problems.append(Problem(what, where, _alone(settings)))
    else:
        mistakes, warnings = _unseparated(table, names, settings)
        problems += mistakes
    spellings: dict[str, list[str]] = {}
    for name in names:
        spellings.setdefault(name.casefold(), []).append(name)
    for alike in spellings.values():
        if len(alike) > 1:
            what = f"labels {' and '.join(map(repr, alike))} differ only in upper and lower case"
            todo = f"write one of them everywhere, or list each in {settings.classes}"
            problems.append(Problem(what, where, todo))
    return problems, warnings


def _unseparated(table: Table, names: list[str], settings: Ingest) -> tuple[list[Problem], list[str]]:
    """Labels such as 'fox; deer' that another separator than ``ingest.separator`` divides into labels.

    A label is refused where that is near certain: all its parts are labels, or it is the only label. A name may well
    hold ``,`` or ``/``, so there all its parts must stand in other labels, and one of them first here and later there:
    'fox, small' and 'deer, small' are names. With ``;``, ``|`` or a line break one such part is enough.

    Args:
        table: for messages.
        names: the labels of a table without a list of classes.
        settings: the section ``ingest``.

    Returns:
        What is near certain, as problems; and a warning about the others that hold such a character.
    """
    known = set(names)
    problems: list[Problem] = []
    doubtful: dict[str, None] = {}
    for mark, written in OTHER_SEPARATORS.items():
        parts = {name: [part.strip() for part in name.split(mark) if part.strip()] for name in names if mark in name}
        uses = Counter(part for pieces in parts.values() for part in set(pieces))
        turned = not {pieces[0] for pieces in parts.values() if pieces}.isdisjoint(
            part for pieces in parts.values() for part in pieces[1:]
        )
        compound = []
        for name, pieces in parts.items():
            elsewhere = [part in known or uses[part] > 1 for part in pieces]
            several = len(pieces) > 1
            sure = any(elsewhere) if mark in ";|\n" else turned and all(elsewhere)
            if pieces and ({*pieces} <= known or (several and (sure or (len(names) == 1 and mark != "/")))):
                compound.append(name)
            elif several:
                doubtful[name] = None
        if compound:
            verb = "seems" if len(compound) == 1 else "seem"
            what = f"label {some(list(map(repr, compound)), 1)} {verb} to be labels with {written} between them"
            todo = (
                f"set ingest.separator to {written}, or rewrite the cells; where it is one class, list all in"
                f" {settings.classes}"
            )
            if mark == settings.separator:  # in a list of a Parquet file
                todo = "write each label of a list by itself"
            problems.append(Problem(what, str(table.path), todo))
    compound, words = ([], []) if problems else _of_words(names)  # the names are several labels each
    if compound:
        verb = "seems" if len(compound) == 1 else "seem"
        what = f"label {some(list(map(repr, compound)), 1)} {verb} to be labels with blanks between them"
        todo = (
            f"write ingest.separator: ' ', or rewrite the cells; where it is one class, list all in {settings.classes}"
        )
        problems.append(Problem(what, str(table.path), todo))
    doubtful |= dict.fromkeys(words)
    if not doubtful or problems:
        return problems, []
    verb = "looks" if len(doubtful) == 1 else "look"
    return [], [
        f"{len(doubtful)} of {counted(len(names), 'class', 'classes')} {verb} like several labels:"
        f" {some(list(map(repr, doubtful)), 3)}; ingest.separator is {settings.separator!r}. Where these are names,"
        f" list all classes in {settings.classes}"
    ]


def _of_words(names: list[str]) -> tuple[list[str], list[str]]:
    """Names that seem to be labels with blanks between them, and those that only may be.

    Names of species share words, too, as 'Red Fox' and 'Fox Squirrel' do. It is near certain where most
    names are of words that stand in other names, there are fewer words than names and one stands first here and later
    there; and where all are numbers.
    """
    words = {name: name.split() for name in names if "\n" not in name}
    spaced = {name: pieces for name, pieces in words.items() if len(pieces) > 1}
    uses = Counter(word for pieces in words.values() for word in set(pieces))
    if spaced and all(word.isdigit() for word in uses):
        return list(spaced), []
    shared = [name for name, pieces in spaced.items() if all(uses[word] > 1 for word in pieces)]
    firsts = {pieces[0] for pieces in spaced.values()}
    later = {word for pieces in spaced.values() for word in pieces[1:]}
    if len(shared) >= max(SEVERAL, len(spaced) / 2) and not firsts.isdisjoint(later):
        return (shared, []) if len(uses) < len(names) else ([], shared)
    of_labels = [name for name, pieces in spaced.items() if {*pieces} <= words.keys()]
    # of two or three, as 'fire truck', it says little
    return [], of_labels if len(of_labels) >= max(SEVERAL, len(spaced) / 2) else []


def misspelt(labels: LabelLists, names: list[str], settings: Ingest) -> list[str]:
    """A warning where a rare label is spelled nearly like a frequent one, as 'catt' and 'cat' are.

    Args:
        labels: of all images; a code is a position in ``names``.
        names: of the labels.
        settings: the section ``ingest``.
    """
    if len(names) > COMPARED:
        return []
    counts = {names[code]: count for code, count in Counter(labels.codes).items()}
    alike = []
    for name in sorted(name for name, count in counts.items() if count <= RARE):
        frequent = [other for other, count in counts.items() if count >= MUCH_MORE * counts[name]]
        one_letter = 1 - 1.1 / len(name)  # the ratio where one is another, so that long names with a word alike are not
        close = difflib.get_close_matches(name, frequent, n=1, cutoff=max(NEARLY, one_letter))
        # numbers tell classes apart that are called alike
        if close and NUMBERS.sub("", close[0]) != NUMBERS.sub("", name):
            alike.append(f"{name!r} (on {counted(counts[name], 'image')}) like {close[0]!r} (on {counts[close[0]]:,})")
    if not alike:
        return []
    return [
        f"{counted(len(alike), 'label')} spelled nearly like a frequent one: {some(alike)}. Correct what is a mistake;"
        f" with the classes listed in {settings.classes} other names are refused"
    ]


def accents_advice(name: str, names: Iterable[str], listed_in: str) -> str:
    """What to do where one of ``names`` differs from ``name`` in nothing but its Unicode form; "" where none does."""
    composed = unicodedata.normalize("NFC", name)
    if composed not in (unicodedata.normalize("NFC", other) for other in names if not other.isascii()):
        return ""
    return f"write its accents in the Unicode form of {listed_in}: copy the name from there"


def _alone(settings: Ingest) -> str:
    return f"write the names alone, with {settings.separator!r} between them"


def _label_advice(token: str, names: list[str], settings: Ingest, text: str, listed_in: str) -> str:
    """``text`` is a label of the table that is no number, if there is one: then none is read as an index."""
    if token.isdigit() and text:
        return (
            f"some labels are numbers and some are not, such as {text!r}: write names, or indices into"
            f" {settings.classes}, and not both"
        )
    if token.isdigit():
        return f"indices start at 0 and end at the number of rows of {settings.classes} less 1"
    if A_LIST.fullmatch(token):
        return _alone(settings)
    if token.casefold() in NOTHING:
        return f"leave the cell empty where no class is there, or add it to {listed_in} if it is one"
    if advice := accents_advice(token, names, listed_in):
        return advice
    lower = {name.lower(): name for name in names}
    close = difflib.get_close_matches(token.lower(), list(lower), n=1, cutoff=0.65)
    separated = next((mark for mark in OTHER_SEPARATORS if mark in token and mark != settings.separator), "")
    if separated != "\n" and " " in token and all(word.lower() in lower or word.isdigit() for word in token.split()):
        separated = " "
    if separated:
        return (
            f"labels are separated by {settings.separator!r}: rewrite the cell, or set ingest.separator to"
            f" {OTHER_SEPARATORS.get(separated, repr(separated))} if all tables have that"
        )
    if close:
        return f"did you mean {lower[close[0]]!r}? else add the class to {listed_in}"
    return f"add the class to {listed_in}, or correct the label"
