"""COCO Camera Traps JSON: the camera's location becomes the group, so that no site is on two sides of the split.

Source of the format: LILA BC, "COCO Camera Traps" (images with location, seq_id, frame_num; annotations with
category_id; a category for empty pictures). The JSON is streamed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from capnet.config import CameraTraps, Ingest
from capnet.data.annotations import Annotations
from capnet.data.annotations.class_list import published_classes
from capnet.data.annotations.coco import pixels, read_categories
from capnet.data.annotations.json_stream import items
from capnet.data.annotations.label_lists import LabelLists
from capnet.data.annotations.paths import normal_path, path_fault
from capnet.errors import DataError, Problem

TODO = "put the COCO Camera Traps file there, or correct ingest.camera_traps.file"


@dataclass
class _Frame:
    """One picture: its place, and the categories that were seen on it (None: nobody has looked)."""

    path: str
    location: str | None
    sequence: str | None
    width: int | None
    height: int | None
    seen: set[int] | None = None


@dataclass
class _Found:
    frames: dict[str, _Frame] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    corrupt: set[str] = field(default_factory=set)


def read(root: Path, settings: Ingest) -> Annotations:
    """Rows in the file's order; a picture of a blank category is kept without labels, one that nobody looked at is left
    out.

    Raises DataError where the file cannot be read or ``ingest.camera_traps`` names a category that is not there.
    """
    import pandas as pd

    choices = settings.camera_traps
    path = root / choices.file
    categories = read_categories(path, TODO)
    kinds = _kinds(categories, choices, path)
    found = _images(path, choices)
    _annotate(path, found, categories)
    _tell_sequences_apart(found)
    if choices.sequence_maximum:
        _over_sequences(found)
    names = [
        name for number, name in categories.items() if number not in kinds["blank"] and number not in kinds["unsure"]
    ]
    if not names:
        raise DataError(
            "every category is blank or unsure, so there are no classes",
            str(path),
            "correct ingest.camera_traps.blank and unsure",
        )
    index = {number: c for c, number in enumerate(number for number, name in categories.items() if name in set(names))}
    classes, mistakes = published_classes(root, names, settings)
    labels, unknown = LabelLists(), LabelLists()
    columns: dict[str, list[Any]] = {
        name: [] for name in ("image_id", "path", "group", "sequence", "width", "height", "where")
    }
    unseen = 0
    for image, frame in found.frames.items():
        if frame.seen is None:
            unseen += 1
            continue
        present = sorted(index[number] for number in frame.seen if number in index)
        labels.append(present)
        unknown.append(sorted(set(range(len(names))) - set(present)) if frame.seen & kinds["unsure"] else ())
        # a burst without a site stays together, too
        group = frame.location or (f"sequence {frame.sequence}" if frame.sequence else None)
        values = (image, frame.path, group, frame.sequence, frame.width, frame.height, f"{choices.file} image {image}")
        for column, value in zip(columns.values(), values, strict=True):
            column.append(value)
    if not columns["path"] and not found.problems:
        raise DataError("no picture is annotated", str(path), TODO)
    every = range(len(names))
    table = pd.DataFrame({**columns, "labels": labels.mapped(every), "unknown": unknown.mapped(every)})
    for name in ("width", "height"):
        table[name] = table[name].astype("Int32")
    reasons = {"no annotation, so nobody looked": unseen, "marked corrupt in the annotations": len(found.corrupt)}
    left_out = {reason: count for reason, count in reasons.items() if count}
    return Annotations(
        table.assign(slice=None, given_split=None), classes, [*mistakes, *found.problems], left_out=left_out
    )


def _kinds(categories: dict[int, str], choices: CameraTraps, path: Path) -> dict[str, set[int]]:
    """Ids of the categories that are no class; one that is named and not there is a mistake, except for the default
    name.
    """
    numbers = {name: number for number, name in categories.items()}
    if choices.blank == CameraTraps().blank:  # the usual name, however it is spelt
        numbers |= {
            blank: number for blank in choices.blank for name, number in numbers.items() if name.casefold() == blank
        }
    missing = [
        name
        for name in (*choices.blank, *choices.unsure)
        if name not in numbers and choices.blank != CameraTraps().blank
    ]
    missing += [name for name in choices.unsure if name not in numbers and name not in missing]
    if missing:
        listed = ", ".join(sorted(numbers)[:30])
        problems = [
            Problem(f"there is no category {name!r}", f"ingest.camera_traps, {path}", f"the categories are: {listed}")
            for name in missing
        ]
        raise DataError(problems=problems)
    return {
        "blank": {numbers[name] for name in choices.blank if name in numbers},
        "unsure": {numbers[name] for name in choices.unsure},
    }


def _images(path: Path, choices: CameraTraps) -> _Found:
    found = _Found()
    paths: dict[str, str] = {}
    for item in items(path, "images", TODO):
        number, name = item.get("id"), item.get("file_name")
        where = f"{path.name} image {number}"
        if not isinstance(number, str | int) or isinstance(number, bool) or not isinstance(name, str):
            found.problems.append(Problem(f"image {str(item)[:80]} needs an id and a file_name", path.name, TODO))
            continue
        image = str(number)
        if item.get("corrupt") is True:
            found.corrupt.add(image)
            continue
        picture = f"{choices.images}/{name}" if choices.images else name
        fault = path_fault(picture)
        picture = normal_path(picture)
        if not fault and (image in found.frames or picture in paths):
            fault = (
                f"image {image} is there twice"
                if image in found.frames
                else f"path {picture!r} is there twice, first in image {paths[picture]}"
            )
        if fault:
            found.problems.append(Problem(fault, where, "correct the file"))
            continue
        paths[picture] = image
        location, sequence = (None if item.get(key) in (None, "") else str(item[key]) for key in ("location", "seq_id"))
        found.frames[image] = _Frame(picture, location, sequence, pixels(item.get("width")), pixels(item.get("height")))
    return found


def _annotate(path: Path, found: _Found, categories: dict[int, str]) -> None:
    for item in items(path, "annotations", TODO):
        image, category = str(item.get("image_id")), item.get("category_id")
        if not isinstance(category, int) or category not in categories:
            found.problems.append(
                Problem(
                    f"annotation {item.get('id')} names category {category}, which is not there",
                    path.name,
                    "correct the file",
                )
            )
        elif image in found.frames:
            frame = found.frames[image]
            frame.seen = (frame.seen or set()) | {category}
        elif image not in found.corrupt:
            found.problems.append(
                Problem(
                    f"annotation {item.get('id')} names image {image}, which is not there",
                    path.name,
                    "correct the file",
                )
            )


def _over_sequences(found: _Found) -> None:
    """What is seen on one frame counts for all frames of its sequence."""
    together: dict[str, set[int]] = {}
    for frame in found.frames.values():
        if frame.sequence is not None and frame.seen:
            together.setdefault(frame.sequence, set()).update(frame.seen)
    for frame in found.frames.values():
        if frame.sequence in together:
            frame.seen = together[frame.sequence]


def _tell_sequences_apart(found: _Found) -> None:
    """Where locations number their sequences each from 1, the location becomes part of a sequence's name."""
    places: dict[str, set[str]] = {}
    located = [(frame, frame.location, frame.sequence) for frame in found.frames.values()]
    for _, location, sequence in located:
        if location is not None and sequence is not None:
            places.setdefault(sequence, set()).add(location)
    for frame, location, sequence in located:
        if location is not None and sequence is not None and len(places[sequence]) > 1:
            frame.sequence = f"{location} / {sequence}"
