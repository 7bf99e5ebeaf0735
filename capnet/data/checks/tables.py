"""The tables that rules judge, from split.parquet: one row an image, one row a class and split. No loops over rows: a
million take seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from capnet.contracts import SPLITS, Classes, parts, row_lengths
from capnet.data.annotations.label_lists import known_positives, label_csr
from capnet.data.annotations.paths import DataFolder
from capnet.data.checks.files import OUTSIDE
from capnet.data.images.image_files import ImageFile
from capnet.data.images.near_duplicates import NO_DHASH, as_words, burst_frames, near_duplicates
from capnet.section import path_fault

WIDEST = 1 << 15  # classes that the tables can hold


def listed_positives(frame: pd.DataFrame, n_classes: int) -> csr_array:
    """Labels that are there for certain, sparse bool [row, class], without those beyond the class list."""
    return known_positives(frame, WIDEST)[:, :n_classes]


def positives_by_split(frame: pd.DataFrame, n_classes: int) -> dict[str, np.ndarray]:
    """Known positives, int [class], of every split that has rows."""
    positives = listed_positives(frame, n_classes)
    split = frame["split"].to_numpy(dtype=object)
    return {name: positives[split == name].sum(axis=0) for name in SPLITS if (split == name).any()}


def image_table(frame: pd.DataFrame) -> pd.DataFrame:
    """What the rules judge, one row an image.

    Args:
        frame: split.parquet.

    Returns:
        Its columns without labels, and highest_label, repeated_labels, path_leaves (0 or 1) with path_fault, and
        sides_of_picture, sides_of_group, sides_of_sequence: in how many splits these are.
    """
    columns = ("image_id", "path", "split", "width", "height", "sha256", "group", "sequence")
    table = frame[[name for name in columns if name in frame or name != "sequence"]].reset_index(drop=True)
    entries = row_lengths(frame["labels"]) + row_lengths(frame["unknown"])
    highest, distinct = np.zeros(len(frame), dtype=np.int64), np.zeros(len(frame), dtype=np.int64)
    for part in parts(entries):
        both = label_csr(frame["labels"].iloc[part], WIDEST) + label_csr(frame["unknown"].iloc[part], WIDEST)
        both.sort_indices()
        distinct[part] = per_row = np.diff(both.indptr)
        highest[part][per_row > 0] = both.indices[both.indptr[1:][per_row > 0] - 1]
    table["highest_label"], table["repeated_labels"] = highest, entries - distinct
    table["path_fault"] = [path_fault(path) for path in table["path"]]
    table["path_leaves"] = (table["path_fault"] != "").astype(int)
    for name, column in (("picture", "sha256"), ("group", "group"), ("sequence", "sequence")):
        if column in table:  # a row without a value is in one split
            splits = table.groupby(column)["split"].transform("nunique")
            table[f"sides_of_{name}"] = splits.fillna(1).astype(np.int64)
    return table


def add_links(table: pd.DataFrame, root: Path) -> None:
    """Add to the paths that leave the data folder those which a symbolic link leads out of it."""
    folder = DataFolder(root)
    faults = [
        fault or ("a link leads out of the data folder" if folder.leads_out(path) else "")
        for path, fault in zip(table["path"], table["path_fault"], strict=True)
    ]
    table["path_fault"] = faults
    table["path_leaves"] = (table["path_fault"] != "").astype(int)


def add_files(table: pd.DataFrame, seen: Sequence[ImageFile], whole: bool) -> None:
    """Add what the files are now: columns ``fault``, ``change`` (texts), ``missing``, ``broken``, ``changed`` (0 or 1).

    Args:
        table: from ``image_table``, changed in place.
        seen: of each row.
        whole: whether files were read to the end, so that their sha256 is compared as well as their size.
    """
    fault = [one.fault for one in seen]
    table["fault"] = fault
    table["missing"] = [int(text == "missing") for text in fault]
    table["broken"] = [int(text not in ("", "missing", OUTSIDE.fault)) for text in fault]
    change = []
    for one, width, height, sha256 in zip(seen, table["width"], table["height"], table["sha256"], strict=True):
        if one.fault:
            change.append("")
        elif width == width and height == height and sorted((one.width, one.height)) != sorted((width, height)):
            change.append(f"{one.width} x {one.height} pixels, the table says {int(width)} x {int(height)}")
        else:
            change.append("other bytes" if whole and isinstance(sha256, str) and one.sha256 != sha256 else "")
    table["change"], table["changed"] = change, [int(bool(text)) for text in change]


def add_dhashes(table: pd.DataFrame, seen: Sequence[ImageFile]) -> None:
    """Add which images have a look-alike, and which another frame of their burst, in another split.

    Args:
        table: from ``image_table``; gets the columns look_alikes and burst_frames (0 or 1), look_alike and burst_frame
            (path of the other image, None for none).
        seen: of each row, with dhashes.
    """
    words = as_words([one.dhash or NO_DHASH for one in seen])
    splits, paths = (np.asarray(table[name], dtype=object) for name in ("split", "path"))
    contents = pd.factorize(table["sha256"])[0]
    contents = np.where(contents < 0, len(table) + np.arange(len(table)), contents)  # a file without a hash is alone
    twin = near_duplicates(words, splits, contents)
    frame = np.where(twin >= 0, -1, burst_frames(words, splits, contents, paths.tolist()))
    for name, partner in (("look_alike", twin), ("burst_frame", frame)):
        table[f"{name}s"] = (partner >= 0).astype(np.int64)
        table[name] = [paths[row] if row >= 0 else None for row in partner]


def class_table(frame: pd.DataFrame, classes: Classes) -> pd.DataFrame:
    """Known positives of every class in every split that has rows: columns class, split, positives."""
    counts = positives_by_split(frame, len(classes))
    rows = [(name, split, n) for split in counts for name, n in zip(classes.names, counts[split].tolist(), strict=True)]
    return pd.DataFrame(rows, columns=["class", "split", "positives"])
