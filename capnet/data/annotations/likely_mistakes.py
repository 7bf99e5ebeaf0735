"""What is allowed in labels and images but is more often a mistake: a warning each, with the first example."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from unicodedata import category, normalize

from capnet.contracts import Classes
from capnet.data.annotations.label_lists import class_counts
from capnet.data.annotations.label_names import NOTHING
from capnet.data.annotations.unread_columns import SITE, TOGETHER, UNSURE
from capnet.data.images.decode import SUFFIXES
from capnet.errors import SHOWN, counted, some

if TYPE_CHECKING:
    import pandas as pd

GROUP_FOLDER = re.compile(rf"(?:^|/)((?:{'|'.join((SITE, *TOGETHER))})[ _-]?\d+)/", re.IGNORECASE)


def likely_mistakes(rows: pd.DataFrame, classes: Classes, data_format: str) -> Iterator[str]:
    """Warnings about the labels.

    Args:
        rows: labels, unknown (class indices), path and, of images that were read, sha256.
        classes: the classes.
        data_format: what ``data.format`` says.
    """
    yield from _no_classes(classes, data_format)
    if data_format != "csv":  # which refuses them, unless classes.csv lists each
        yield from _classes_alike(classes)
    yield from _on_every_image(rows, classes)
    yield from _spelt_alike(rows)
    yield from _without_group(rows)
    yield from _contradictions(rows)


def _no_classes(classes: Classes, data_format: str) -> Iterator[str]:
    """A warning of each class whose name says that nothing is there, or that nobody knows."""
    for item in classes.items:
        marks = set(item.name) if all(category(letter).startswith("P") for letter in item.name) else set[str]()
        if item.name.casefold() in NOTHING or marks - {"?"}:  # as "-"
            traps = data_format == "camera_traps"
            todo = "name it in ingest.camera_traps.blank" if traps else "give such images no label"
            yield f"class {item.name!r} is learned like any other; if it says that nothing is there, {todo}"
        elif item.name.casefold() in {"unknown", *UNSURE} or marks:
            what = "is learned like any other, and where it is, classes without a label count as absent"
            todo = "name in column unknown what the image may show"
            if data_format == "camera_traps":
                todo = "name it in ingest.camera_traps.unsure"
            yield f"class {item.name!r} {what}; if it says that nobody knows, {todo}"


def _classes_alike(classes: Classes) -> Iterator[str]:
    """A warning of classes of which one may be another that somebody wrote in other capitals."""
    first: dict[str, str] = {}
    alike = []
    for name in classes.names:
        other = first.setdefault(_folded(name), name)
        if other != name:
            alike.append(f"{other!r} and {name!r}")
    if alike:
        yield (
            f"classes differ in capitals or blanks only: {some(alike, 3)}. Each is learned by itself, and an image of"
            " one counts as without the other: where they are one, keep one of them in the annotations"
        )


def _on_every_image(rows: pd.DataFrame, classes: Classes) -> Iterator[str]:
    """A warning of each class that is unknown on every image, or missing on none; of many, how many more there are."""
    counts = [class_counts(rows[column], len(classes)) for column in ("labels", "unknown")]
    alike = []
    for item, present, unknown in zip(classes.items, *counts, strict=True):
        if unknown == len(rows):
            alike.append(f"class {item.name!r} is unknown on every image: it can be neither learned nor measured")
        elif len(rows) > 1 and present + unknown == len(rows):
            what = "is missing on no image: what images look like without it cannot be learned"
            alike.append(f"class {item.name!r} {what}")
    yield from alike[:SHOWN]
    if len(alike) > SHOWN:
        yield f"{counted(len(alike) - SHOWN, 'more class', 'more classes')} unknown on every image, or missing on none"


def _spelt_alike(rows: pd.DataFrame) -> Iterator[str]:
    """A warning of the first two groups, and the first two slices, that differ in their spelling only."""
    for column in ("group", "slice"):
        spelt: dict[str, str] = {}
        for value in map(str, rows[column].dropna().unique()):
            other = spelt.setdefault(_folded(value), value)
            if other != value:
                apart = "may come into train and test" if column == "group" else "is measured apart"
                what = (
                    "capitals or blanks" if normalize("NFC", other) != normalize("NFC", value) else "the Unicode form"
                )
                yield f"{column} {other!r} and {value!r} differ in {what} only: each {apart}"
                break


def _folded(name: str) -> str:
    """The same for names that differ in capitals, blanks or the Unicode form only."""
    return " ".join(normalize("NFC", name).casefold().split())


def _without_group(rows: pd.DataFrame) -> Iterator[str]:
    """A warning of folders that read like groups where no image has one."""
    if rows["group"].notna().any():
        return
    folders = dict.fromkeys(match[1] for match in map(GROUP_FOLDER.search, rows["path"]) if match)
    if len(folders) > 1:
        yield (
            f"no image has a group, and there are folders such as {next(iter(folders))!r}. If the images of one belong"
            " together, write its name as their group: else they get into two splits, and the figures flatter"
        )


def _contradictions(rows: pd.DataFrame) -> Iterator[str]:
    """A warning of copies of one image whose labels differ."""
    copies = rows[rows["sha256"].notna() & rows["sha256"].duplicated(keep=False)]
    contradictions = []
    for _, same in copies.groupby("sha256", sort=False):
        first: dict[tuple[tuple[int, ...], ...], str] = {}  # path of the first copy with these labels
        for path, labels, unknown in zip(same["path"], same["labels"], same["unknown"], strict=True):
            first.setdefault((tuple(labels), tuple(unknown)), path)
        if len(first) > 1:
            contradictions.append(list(first.values())[:2])
    if contradictions:
        one, other = contradictions[0]
        more = f", and {counted(len(contradictions) - 1, 'more such image')}" if len(contradictions) > 1 else ""
        yield f"{one!r} and {other!r} are the same image and have different labels{more}: correct one, or remove it"


def unlisted_images(root: Path, paths: Iterable[str], entry: str) -> str:
    """A warning of image files that are not listed, in the folders of those that are; "" where every one is.

    Args:
        root: the data folder.
        paths: of the listed images, relative to ``root``.
        entry: what the others lack, such as a row.
    """
    count, example, names = 0, "", dict[PurePosixPath, set[str]]()
    for path in map(PurePosixPath, paths):
        names.setdefault(path.parent, set()).add(path.name)
    for folder, listed in names.items():
        if not (root / folder).is_dir():  # a shard, or missing
            continue
        seen = (name for name in os.listdir(root / folder) if not name.startswith("."))  # macOS: ._IMG_1.JPG
        images = {name for name in seen if name.lower().endswith(SUFFIXES)}
        if unlisted := images - listed:
            count += len(unlisted)
            example = example or str(folder / min(unlisted))
    if not count:
        return ""
    first = f"{example!r} has" if count == 1 else f"{count:,} images, {example!r} first, have"
    more = "an image on which nothing is needs one, too; capnet label asks about new ones"
    return f"{first} no {entry} and {'is' if count == 1 else 'are'} not used: {more}"
