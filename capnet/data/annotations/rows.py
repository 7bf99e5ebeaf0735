"""The one way from a reader to the manifest: rows are added one at a time, checked, and made into one frame."""

from __future__ import annotations

import sys
import unicodedata
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from capnet.contracts import SPLITS, Classes, parts, row_lengths
from capnet.data.annotations.label_lists import LabelLists, label_csr
from capnet.data.annotations.paths import TODO, normal_path, without_suffix
from capnet.errors import MOST, DataError, Problem, Problems, some
from capnet.section import SURROGATE, path_fault

if TYPE_CHECKING:
    import pandas as pd

NAME_COLUMNS = ("given_split", "group", "slice")  # texts that many rows share
OPTIONAL_COLUMNS = ("sequence", "width", "height", "sha256")
SIZES = ("width", "height")
LONGEST_NAME = 1000  # letters of a class
TURNS_TEXT = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # set the direction of what follows


class LeftOutImage(NamedTuple):
    """An image that the format itself takes out, such as one that nobody has looked at."""

    image_id: str
    path: str
    group: str | None = None
    sequence: str | None = None

    @property
    def is_burst(self) -> bool:
        """Whether its group is just the burst that it is a frame of, because it has no other."""
        return bool(self.group) and self.group == group_of(None, self.sequence)


LeftOut = dict[str, list[LeftOutImage]]  # by reason


@dataclass(frozen=True)
class Annotations:
    """What a reader returns; ``make_rows`` builds and checks it.

    Attributes:
        rows: manifest columns, one row an image; width, height, sha256 and sequence only where the format has them.
            Column ``where`` is a row's location in its file.
        classes: in the order of the label indices.
        problems: every mistake in the label files.
        source: template for the name of a row, with {} for ``where``.
        left_out: images that the format itself takes out, by reason.
        warnings: what may be a mistake, for people to look at.
    """

    rows: pd.DataFrame
    classes: Classes
    problems: list[Problem]
    source: str = "{}"
    left_out: LeftOut = field(default_factory=dict)
    warnings: Sequence[str] = ()

    @cached_property
    def _where(self) -> list[Any]:
        return self.rows["where"].tolist()

    def where(self, row: int) -> str:
        """Name of a row for a message."""
        return self.source.replace("{}", str(self._where[row]))


def group_of(group: str | None, sequence: str | None) -> str | None:
    """The group of an image: its own, or else the burst that it is a frame of; None where it has neither."""
    return group or (f"sequence {sequence}" if sequence else None)


class RowList:
    """Rows that a reader adds one at a time, in columns that a million rows fit into."""

    def __init__(self, *columns: str, source: str = "{}") -> None:
        """Start without rows.

        Args:
            columns: which of OPTIONAL_COLUMNS the format has.
            source: template for the name of a row, with {} for its ``where``.
        """
        if unknown := set(columns) - set(OPTIONAL_COLUMNS):
            raise ValueError(f"no such columns: {sorted(unknown)}; a format may have {OPTIONAL_COLUMNS}")
        names = ("image_id", "path", *NAME_COLUMNS, *columns, "where")
        self.columns: dict[str, list[Any]] = {name: [] for name in names}
        self.labels, self.unknown = LabelLists(), LabelLists()
        self.problems = Problems()
        self.source = source

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, where: str | int) -> str:
        """Name of a row for a message."""
        return self.source.replace("{}", str(where))

    def add(
        self,
        path: str,
        labels: Iterable[int],
        where: str | int,
        *,
        image_id: str | None = None,
        unknown: Iterable[int] = (),
        **more: Any,
    ) -> None:
        """Add an image, or a problem where its path or its labels cannot be used.

        Args:
            path: relative to the data folder.
            labels: class indices, or codes that make_rows translates.
            where: the row's location in its file, for messages.
            image_id: unique; without it, the path without its suffix.
            unknown: like ``labels``, of classes whose state nobody knows.
            more: further columns by name: given_split, group, slice and those that the list was made with.

        Raises:
            DataError: so many images cannot be used that no more are looked for.
        """
        fault, todo = "", "correct the reader"
        if not isinstance(path, str):
            fault = f"path {path!r} is no text"
        elif fault := path_fault(path):
            todo = TODO
        elif unexpected := more.keys() - self.columns.keys():
            fault = f"columns {sorted(unexpected)} are not in the reader's RowList"
        try:
            present, unsure = array("i", labels), array("i", unknown)
        except (TypeError, OverflowError):
            fault = fault or f"labels {labels!r}, unknown {unknown!r}: each must be a list of class indices"
        if fault:
            self.problems.append(Problem(fault, self.name(where), todo))
            return
        path = normal_path(path)
        self.labels.append(present)
        self.unknown.append(unsure)
        more |= {"image_id": image_id or without_suffix(path), "path": path, "where": where}
        for name, column in self.columns.items():
            value = more.get(name)
            # one text for each group, slice and split, however many rows have it
            column.append(sys.intern(value) if name in NAME_COLUMNS and type(value) is str else value)


def make_rows(
    rows: RowList,
    classes: Classes,
    problems: Sequence[Problem],
    *,
    codes: Sequence[int] | None = None,
    left_out: LeftOut | None = None,
    warnings: Sequence[str] = (),
) -> Annotations:
    """Make what a reader returns.

    An image id or a path that appears twice becomes a problem, and only its first row is kept. A sequence is the group
    of images without another: frames of one burst stay together.

    Args:
        rows: the images.
        classes: the classes that labels are indices into.
        problems: mistakes that the reader found itself; those in ``rows`` follow.
        codes: class index of every code in ``rows``, below 0 for one that is no class; without it, codes are indices.
        left_out: images that the format itself takes out, by reason.
        warnings: what may be a mistake.

    Raises:
        DataError: a column has another type than the manifest, or a label is no class.
    """
    import pandas as pd

    indices = range(len(classes)) if codes is None else codes
    try:
        kinds = {name: "Int32" if name in SIZES else object for name in rows.columns}
        frame = pd.DataFrame({name: pd.Series(rows.columns[name], dtype=kind) for name, kind in kinds.items()})
    except (TypeError, ValueError) as error:
        raise DataError(f"width or height is no number: {error}", "reader", "correct the reader") from None
    for name, lists in (("labels", rows.labels), ("unknown", rows.unknown)):
        if lists.codes and not 0 <= min(lists.codes) <= max(lists.codes) < len(indices):
            what = f"column {name} has indices from {min(lists.codes)} to {max(lists.codes)}"
            todo = f"there are {len(indices)} classes, counted from 0: correct the reader"
            raise DataError(what, "reader", todo)
        frame[name] = lists.mapped(indices)
    if faults := list(_faults(frame)):
        raise DataError(problems=[Problem(fault, "reader", "correct the reader") for fault in faults])
    checks = (_unpaired_surrogates(frame, rows), _both_states(frame, rows, classes), _repetitions(frame, rows))
    mistakes = [problem for check in checks for problem in islice(check, MOST)]
    frame = frame[~(frame["path"].duplicated() | frame["image_id"].duplicated())].reset_index(drop=True)
    if "sequence" in frame:
        frame["group"] = pd.Series(map(group_of, frame["group"], frame["sequence"]), dtype=object)
    problems = [*problems, *_strange_names(classes.names), *rows.problems, *mistakes]
    return Annotations(frame, classes, problems, rows.source, left_out or {}, warnings)


def _is_control(letter: str) -> bool:
    return unicodedata.category(letter) in ("Cc", "Cs") or letter in TURNS_TEXT


def _strange_names(names: Sequence[str]) -> Iterable[Problem]:
    """Class names that a person cannot tell apart, or that change what is around them on a page or in a terminal."""
    alike: dict[str, str] = {}
    if control := [name for name in names if any(_is_control(letter) for letter in name)]:
        verb = "has a control character" if len(control) == 1 else "have control characters"
        labels = "label" if len(control) == 1 else "labels"
        yield Problem(f"{labels} {some(list(map(repr, control)))} {verb}", "the classes", "correct the labels")
    for name in names:
        if len(name) > LONGEST_NAME:
            what = f"label {name[:40]!r}... has {len(name)} letters"
            yield Problem(what, "the classes", f"a name has at most {LONGEST_NAME}")
        seen = "".join(letter for letter in unicodedata.normalize("NFC", name) if unicodedata.category(letter) != "Cf")
        first = alike.setdefault(" ".join(seen.split()), name)
        if first != name:
            what = f"labels {first!a} and {name!a} look alike: they differ in nothing that is seen"
            yield Problem(what, "the classes", "write one of them everywhere")


def _faults(frame: pd.DataFrame) -> Iterable[str]:
    """Columns that hold what no manifest can, one sentence each."""
    import pandas as pd

    for name in ("image_id", *NAME_COLUMNS, "sequence", "sha256"):
        kind = pd.api.types.infer_dtype(frame[name], skipna=True) if name in frame else "empty"
        if kind not in ("string", "empty"):
            yield f"column {name} must hold text, and holds {kind}"
        elif name == "given_split" and (strange := set(frame[name].dropna()) - set(SPLITS)):
            yield f"given_split {sorted(strange)}: allowed are {', '.join(SPLITS)}, or nothing"
    for name in SIZES:
        if name in frame and (frame[name].dropna() < 1).any():
            yield f"column {name} must hold pixels, from 1"


def _unpaired_surrogates(frame: pd.DataFrame, rows: RowList) -> Iterable[Problem]:
    for name in ("image_id", *NAME_COLUMNS, "sequence"):
        for where, value in zip(frame["where"], frame[name], strict=True) if name in frame else ():
            if isinstance(value, str) and not value.isascii() and SURROGATE.search(value):
                what = f"{name.replace('_', ' ')} {value!r} has an unpaired surrogate, which is no character"
                yield Problem(what, rows.name(where), "correct the file")


def _both_states(frame: pd.DataFrame, rows: RowList, classes: Classes) -> Iterable[Problem]:
    if rows.unknown.codes:
        for part in parts(row_lengths(frame["unknown"])):
            where = frame["where"].iloc[part]
            labels, unknown = (label_csr(frame[name].iloc[part], len(classes)) for name in ("labels", "unknown"))
            for row, c in zip(*labels.multiply(unknown).nonzero(), strict=True):
                what = f"label {classes.names[c]!r} is both in labels and in unknown"
                yield Problem(what, rows.name(where.iloc[row]), "keep it in one of the two columns")


def _repetitions(frame: pd.DataFrame, rows: RowList) -> Iterable[Problem]:
    advice = {
        "path": "keep one row an image, with all its labels; what several people disagree about is unknown",
        "image_id": "rename one of the files, or give every image of labels.csv an id of its own, in a column image_id;"
        " without one it is the path without its suffix",
    }
    repeated_path = frame["path"].duplicated()
    for column, among in (("path", frame), ("image_id", frame[~repeated_path])):
        values = among[column]
        first: dict[str, str] = {}
        chosen = values.duplicated(keep=False)
        for where, value in zip(map(rows.name, among["where"][chosen]), values[chosen], strict=True):
            if value in first:
                what = f"{column.replace('_', ' ')} {value!r} appears twice"
                yield Problem(what, f"{where}, first in {first[value]}", advice[column])
            first.setdefault(value, where)
