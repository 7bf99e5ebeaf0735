"""Columns of a label table that nothing reads, although they may say something that counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from capnet.data.annotations.tables import cell_text
from capnet.errors import SHOWN, counted, some

STATES = {"1": 1, "1.0": 1, "0": 0, "0.0": 0, "-1": -1, "-1.0": -1, "true": 1, "false": 0}
STATE_WORDS = {"", *STATES}
# in names of columns and folders that often are groups
TOGETHER = ("patient", "subject", "lesion", "slide", "camera", "station", "deployment", "location")
SITE = "site"  # only at the beginning: where on a body a lesion is, says nothing about the patient
ATTRIBUTES = ("sex", "gender", " age", "_age", "patientage")  # endings of columns that many patients share
# what people call labels that nobody is sure of, as a column or as a class
UNSURE = {"unidentified", "unidentifiable", "unsure", "uncertain", "undetermined", "indeterminate", "doubtful"}
UNSURE |= {"not sure", "not_sure"}
TRAIN = {"train", "training"}
SPLIT_WORDS = {"", *TRAIN, "val", "valid", "validation", "dev", "test", "testing"}


class UnreadColumns:
    """What the cells of such columns have in common, row by row."""

    def __init__(self, header: Sequence[str], read: Sequence[str], classes: Sequence[str]) -> None:
        """Start without rows.

        Args:
            header: the columns of the table.
            read: names of columns that are read.
            classes: those of the columns that hold a class; none where the labels have one column.
        """
        self.has_group, has_split = "group" in header, "split" in header
        self.has_unknown = "unknown" in header
        self.column = {name: number for number, name in enumerate(header) if name not in {*read, *classes}}
        self.states: dict[str, set[str]] = {name: set() for name in self.column if classes}
        self.splits: dict[str, set[str]] = {name: set() for name in self.column if not has_split}

    def add(self, cells: list[Any]) -> None:
        """Take note of a row: a column that holds anything else than states or names of splits is left out."""
        for columns, allowed in ((self.states, STATE_WORDS), (self.splits, SPLIT_WORDS)):
            for name in [*columns]:
                value = cell_text(cells[self.column[name]]).lower()
                if value in allowed:
                    columns[name].add(value)
                else:
                    del columns[name]

    def warnings(self, listed_in: str) -> list[str]:
        """A warning of each column that may be a group, unknown labels or a split, and of those that may be classes.

        Args:
            listed_in: the file of classes.
        """
        warnings = [
            f"column {name!r} is not read. If images with the same value belong together, call it 'group': else they"
            " get into two splits, and the figures flatter"
            for name in self.column
            if not self.has_group
            and (name.casefold().startswith(SITE) or any(word in name.casefold() for word in TOGETHER))
            and not name.casefold().endswith(ATTRIBUTES)
        ]
        warnings += [
            f"column {name!r} is not read. If it holds labels that are uncertain, call it 'unknown': else they count as"
            " absent"
            for name in self.column
            if name.casefold() in UNSURE and not self.has_unknown
        ]
        warnings += [
            f"column {name!r} is not read. If it says which split an image is in, call it 'split', with train, val and"
            " test: else other test images are drawn"
            for name, values in self.splits.items()
            if values & TRAIN and len(values - {""}) > 1
        ]
        unlisted = [name for name, values in self.states.items() if values - {""}]
        if unlisted:
            what = f"{counted(len(unlisted), 'column')} of 1, 0 and -1 {'is' if len(unlisted) == 1 else 'are'} not read"
            warnings.append(f"{what}: {some(unlisted, SHOWN)}. List those that are classes in {listed_in}")
        return warnings
