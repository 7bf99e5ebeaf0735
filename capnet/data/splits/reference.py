"""The file in git that says which images and groups are in test already: they stay there when images are added."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from capnet.contracts import csv_text, hashed_groups
from capnet.errors import ConfigError, some
from capnet.inline import MOST_TABLE, text_and_path

if TYPE_CHECKING:
    import pandas as pd

HEADER = ("image_id", "split", "group")
OLD_HEADER = HEADER[:2]  # of files from before groups were remembered
MOST_IMAGES = 2_000_000  # they take 700 MB
FREE = ""  # no split yet
TRAIN, TEST = "train", "test"  # train: also validation rows, which are drawn anew each time, and those left over


@dataclass(frozen=True)
class Reference:
    """train or test, by image id; and the hash of the group that an image was in, by image id, "" for none."""

    images: Mapping[str, str] = field(default_factory=dict)
    group_of: Mapping[str, str] = field(default_factory=dict)

    @property
    def groups(self) -> dict[str, str]:
        """train or test, by hash of the group; test where its images were in both."""
        ordered = sorted(self.images.items(), key=lambda item: item[1] == TEST)
        return {group: split for image, split in ordered if (group := self.group_of[image])}


NOTHING = Reference()


def _short(groups: pd.Series) -> list[str]:
    """Hashed groups, six letters of each: the file travels as a setting, and equal ones only share a split."""
    return [group[:6] for group in hashed_groups(groups)]


def reference_text(table: pd.DataFrame, before: Reference) -> str:
    """The file's content for a split: image ids in order, each train or test, with its hashed group.

    Args:
        table: columns image_id, split (None where a draw left a row over) and group.
        before: what the file holds; images that ``table`` does not have stay in it.
    """
    rows = {image: (image, split, before.group_of[image]) for image, split in before.images.items()}
    groups = _short(table["group"])
    for image, split, group in zip(table["image_id"], table["split"], groups, strict=True):
        rows[image] = (image, TEST if split == TEST else TRAIN, group)
    return csv_text(HEADER, sorted(rows.values()))


def read_split_reference(setting: str) -> Reference:
    """Which images and groups are in test already, and which are not.

    Args:
        setting: ``split.reference``: a path, or the file's content.

    Returns:
        What the file holds; nothing where there is no such file.

    Raises:
        ConfigError: it is no such table.
    """
    text, path = text_and_path(setting, "split.reference", MOST_TABLE) if setting else (None, Path())
    if text is None:
        return NOTHING
    todo = "write it anew with `capnet split --save-reference`"
    images, group_of = dict[str, str](), dict[str, str]()
    try:
        rows = csv.reader(io.StringIO(text), strict=True)
        head = next(rows, [])
        if tuple(head) not in (HEADER, OLD_HEADER):
            raise ConfigError(f"its first line is not {','.join(HEADER)}", str(path), todo)
        for number, row in enumerate(rows, start=2):
            what = ""
            if len(images) >= MOST_IMAGES:
                what = f"more than {MOST_IMAGES:,} images"
            elif len(row) != len(head) or row[1] not in (TRAIN, TEST):
                what = "no id and train or test"
            elif row[0] in images:
                what = "an image id that is there already"
            if what:
                raise ConfigError(what, f"{path}, line {number}", todo)
            images[row[0]], group_of[row[0]] = sys.intern(row[1]), sys.intern("".join(row[2:]))
    except csv.Error as error:
        raise ConfigError(f"no CSV: {error}", str(path), todo) from None
    return Reference(images, group_of)


def grouped_with(groups: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Which rows are in one group with some rows.

    Args:
        groups: int [row].
        rows: bool [row].

    Returns:
        bool [row]; true for ``rows`` themselves, too.
    """
    return np.isin(groups, groups[rows])


def kept(
    frame: pd.DataFrame, groups: np.ndarray, free: np.ndarray, reference: Reference
) -> tuple[np.ndarray, np.ndarray]:
    """Which rows stay in test, and which are new.

    Args:
        frame: columns image_id and group of all rows.
        groups: int [row]; a group goes as a whole where one of its images is known, and to test before train. Where
            none is, it goes where its images were when the reference was written.
        free: bool [row], rows without a given split.
        reference: of an earlier split.

    Returns:
        bool [row]: test rows, and rows that are not known themselves and whose group is not known either.
    """
    known = frame["image_id"].map(reference.images).to_numpy(dtype=object)
    test, train = grouped_with(groups, known == TEST), grouped_with(groups, known == TRAIN)
    remembered = reference.groups
    former = np.array([remembered.get(group) for group in _short(frame["group"])], dtype=object)
    replaced = ~test & ~train  # none of the group's images is known
    test |= grouped_with(groups, replaced & (former == TEST))
    train |= grouped_with(groups, replaced & (former == TRAIN))
    return free & test, free & ~test & ~train


def leaving_test(
    frame: pd.DataFrame, split: np.ndarray, groups: np.ndarray, test_source: str, reference: Reference
) -> list[str]:
    """A warning that counts the test images of the reference that leave test; none where they all stay.

    Args:
        frame: columns image_id and given_split of all rows.
        split: split [row] that a row was given, or its group.
        groups: int [row].
        test_source: where test rows come from: given, published or share.
        reference: of an earlier split.
    """
    was_test = frame["image_id"].map(reference.images).to_numpy(dtype=object) == TEST
    leaving = was_test & ~np.isin(split, (TEST, FREE) if test_source == "share" else (TEST,))
    if not leaving.any():
        return []
    cause = frame["image_id"][frame["given_split"].notna().to_numpy() & grouped_with(groups, leaving)].tolist()
    why = {
        "share": "column split names another split for them, or for an image of their group or a copy:"
        f" {some(cause)}. Empty those cells to keep the test set"
        if cause
        else "the list of training images names them, or an image of their group or a copy",
        "given": "where column split gives test images, these are all. To keep the earlier ones, give them the split"
        " 'test', too",
        "published": "a published list names all test images",
    }[test_source]
    return [f"{leaving.sum()} of {was_test.sum()} test images of split.reference leave test: {why}"]
