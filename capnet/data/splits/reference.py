"""The file in git that says which images are test images already: they stay it when images are added."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from capnet.contracts import csv_text
from capnet.errors import ConfigError
from capnet.inline import text_and_path

if TYPE_CHECKING:
    import pandas as pd

HEADER = ("image_id", "split")
TRAIN, TEST = "train", "test"  # train: also the validation rows, which are drawn anew each time


def reference_text(table: pd.DataFrame) -> str:
    """The file's content for a split: image ids in order, each train or test.

    Args:
        table: columns image_id and split.
    """
    rows = ((image, TEST if split == TEST else TRAIN) for image, split in table[list(HEADER)].to_numpy())
    return csv_text(HEADER, sorted(rows))


def read_split_reference(setting: str) -> dict[str, str]:
    """Which images are in test already, and which are not.

    Args:
        setting: ``split.reference``: a path, or the file's content.

    Returns:
        train or test, by image id; nothing where there is no such file.

    Raises:
        ConfigError: it is no such table.
    """
    text, path = text_and_path(setting, "split.reference") if setting else (None, Path())
    if text is None:
        return {}
    todo = "write it anew with `capnet split --save-reference`"
    try:
        rows = list(csv.reader(io.StringIO(text), strict=True))
    except csv.Error as error:
        raise ConfigError(f"no CSV: {error}", str(path), todo) from None
    if not rows or tuple(rows[0]) != HEADER:
        raise ConfigError(f"its first line is not {','.join(HEADER)}", str(path), todo)
    found: dict[str, str] = {}
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(HEADER) or row[1] not in (TRAIN, TEST) or row[0] in found:
            repeated = len(row) == len(HEADER) and row[0] in found
            what = "an image id that is there already" if repeated else "no id and train or test"
            raise ConfigError(what, f"{path}, line {number}", todo)
        found[row[0]] = row[1]
    return found


def kept(
    image_ids: pd.Series, groups: np.ndarray, free: np.ndarray, reference: Mapping[str, str]
) -> tuple[np.ndarray, np.ndarray]:
    """Which rows stay in test, and which are new.

    Args:
        image_ids: of all rows.
        groups: int [row]; a group goes as a whole where one of its images is known, and to test before train.
        free: bool [row], rows without a given split.
        reference: train or test, by image id.

    Returns:
        bool [row]: test rows, and rows of which neither they nor their group are known.
    """
    known = image_ids.map(reference).to_numpy(dtype=object)
    test = free & np.isin(groups, groups[known == TEST])
    return test, free & ~test & ~np.isin(groups, groups[known == TRAIN])
