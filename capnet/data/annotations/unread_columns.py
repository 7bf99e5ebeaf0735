"""Columns of a label table, and keys of images in a COCO file, that nothing reads, although they may say something that
counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from capnet.data.annotations.tables import cell_text
from capnet.errors import SHOWN, counted, some

if TYPE_CHECKING:
    from capnet.config import Ingest

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
BURST = {"location": "group", "seq_id": "sequence"}  # keys of images in COCO Camera Traps: what the program calls them
ABSENT = "neg_category_ids"  # of an image in LVIS: categories that were looked for and are not there


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
            if not self.has_group and may_be_group(name)
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


class UnreadKeys:
    """Keys of images in a COCO file that its reader leaves alone, and on how many images they say something."""

    def __init__(self) -> None:
        self._images: Counter[str] = Counter()  # by key
        self._of_burst = self._partly = 0
        self.splits: set[str] = set()

    def add(self, image: Mapping[str, Any]) -> None:
        """Take note of an image: a key of groups counts where its value is a text or a whole number."""
        named = [key for key, value in image.items() if type(value) in (str, int) and value != ""]
        for key in named:
            # no more than are shown: each image of a hostile file may have other keys
            if key in BURST or (_is_group(key) and (key in self._images or len(self._images) < SHOWN)):
                self._images[key] += 1
        self._of_burst += not BURST.keys().isdisjoint(named)
        self._partly += ABSENT in image
        self.splits |= SPLIT_WORDS & {str(image.get("split", "")).lower()}

    def warnings(self) -> list[str]:
        """A warning of the keys that data.format: camera_traps reads; where there are none, of each other one that may
        be a group; and of what annotators did not look for.
        """
        warnings = []
        if named := [key for key in BURST if self._images[key]]:
            keys = f"{'key' if len(named) == 1 else 'keys'} {' and '.join(map(repr, named))}"
            read = " and ".join(f"{key} as the {column}" for key, column in BURST.items())
            warnings = [
                f"{keys} of {counted(self._of_burst, 'image')} {'is' if len(named) == 1 else 'are'} not read: images"
                " that belong together may get into two splits, and the figures flatter. data.format: camera_traps"
                f" reads {read}, of one file, and leaves out images without an annotation"
            ]
        for key, count in () if named else self._images.items():
            warnings.append(
                f"key {key!r} of {counted(count, 'image')} is not read. If images with the same value belong together,"
                " call it 'location', and set data.format: camera_traps, which reads that as the group, of one file,"
                " and leaves out images without an annotation: else they get into two splits, and the figures flatter"
            )
        if self._partly:
            warnings.append(
                f"key {ABSENT!r} of {counted(self._partly, 'image')} is not read. It says that annotators looked for"
                " some categories only, as in LVIS: all others count as absent, and may be there. To count them as"
                " unknown, write labels.csv with a column a class"
            )
        return warnings


@lru_cache(maxsize=1000)
def _is_group(key: str) -> bool:
    """Whether a key of an image names what images are of, such as patient_id: camera_model or location_type do not."""
    return key.casefold().removesuffix("id").rstrip("_- ") in (*TOGETHER, SITE)


def may_be_group(name: str) -> bool:
    """Whether a column of this name often says which images belong together."""
    name = name.casefold()
    return (name.startswith(SITE) or any(word in name for word in TOGETHER)) and not name.endswith(ATTRIBUTES)


def unread_split(values: set[str], settings: Ingest, ids: str) -> list[str]:
    """A warning of the key ``split`` of images, where it divides them and no setting does.

    Args:
        values: those of SPLIT_WORDS that it has.
        settings: the section ``ingest``.
        ids: what lists of images have.
    """
    if settings.train_list or not values & TRAIN or len(values - {""}) < 2:
        return []
    return [
        f"key 'split' of images is not read, so other test images are drawn. To keep the file's, write {ids} into"
        " ingest.train_list and ingest.test_list, and set split.method: published"
    ]
