"""COCO Camera Traps JSON: the camera's location becomes the group, so that no site is in two splits.

Source of the format: LILA BC, "COCO Camera Traps" (images with location, seq_id, frame_num; annotations with
category_id; a category for empty images). The JSON is streamed.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from capnet.data.annotations.class_list import published_classes
from capnet.data.annotations.coco_json import CocoJson, is_whole, pixels, read_categories
from capnet.data.annotations.label_names import NOTHING
from capnet.data.annotations.paths import TODO as TODO_PATH
from capnet.data.annotations.paths import DataFolder, normal_path
from capnet.data.annotations.rows import Annotations, LeftOutImage, RowList, group_of, make_rows
from capnet.data.annotations.unread_columns import BURST, SPLIT_WORDS, unread_split
from capnet.errors import DataError, Problem, Problems, counted, some
from capnet.section import InsidePath, Section, Word, path_fault

if TYPE_CHECKING:
    from capnet.config import Ingest

TODO = "put the COCO Camera Traps file there, or correct ingest.camera_traps.file"
MOST_UNWRITTEN = 50_000_000  # labels that settings say and no annotation, such as 500 classes of 100,000 unsure images


class Settings(Section):
    file: InsidePath = Field("annotations.json", description="the COCO Camera Traps file")
    images: InsidePath = Field("", description="folder that file names are relative to, inside data.root")
    blank: tuple[Word, ...] = Field(("empty",), description="categories that say that nothing is there")
    unsure: tuple[Word, ...] = Field(
        (), description="categories that say that nobody knows: all classes are unknown on such an image"
    )
    sequence_maximum: bool = Field(
        False, description="what is seen on one frame of a sequence counts for all its frames"
    )


@dataclass
class _Frame:
    """One image, and the categories that were seen on it (None: nobody has looked)."""

    path: str
    location: str | None
    sequence: str | None
    width: int | None
    height: int | None
    seen: set[int] | None = None

    @property
    def group(self) -> str | None:
        """The site; a burst without a site stays together, too."""
        return group_of(self.location, self.sequence)

    def left_out(self, image: str) -> LeftOutImage:
        """What is remembered of the image with this id, should people label it later."""
        return LeftOutImage(image, self.path, self.group, self.sequence)


@dataclass
class _File:
    """What the annotations hold: usable images and corrupt ones by id, ids of those that are mistakes, mistakes, and
    which splits images name.
    """

    frames: dict[str, _Frame] = field(default_factory=dict)
    problems: Problems = field(default_factory=Problems)
    corrupt: dict[str, _Frame] = field(default_factory=dict)
    mistaken: set[str] = field(default_factory=set)
    splits: set[str] = field(default_factory=set)


def read(folder: DataFolder, settings: Ingest) -> Annotations:
    """Read the images in the file's order.

    An image of a blank category is kept without labels; one that nobody looked at is left out.

    Args:
        folder: the data folder.
        settings: the section ``ingest``.

    Raises:
        DataError: the file cannot be read, or ``ingest.camera_traps`` names a category that does not exist.
    """
    import numpy as np

    traps = settings.of(Settings)
    path = folder.path(traps.file)
    annotations = CocoJson(path, TODO)
    categories = read_categories(annotations)
    blank, unsure = _not_classes(categories, traps, path)
    file = _images(annotations, traps)
    _annotate(annotations, file, categories)
    _tell_sequences_apart(file)
    warnings = _blank_and_more(file, blank)
    if traps.sequence_maximum:
        _over_sequences(file)
    warnings += _without_location(file)
    warnings += unread_split(file.splits, settings, "the ids of annotated images")
    names = {number: name for number, name in categories.items() if number not in blank | unsure}
    if not names:
        todo = "correct ingest.camera_traps.blank and unsure"
        raise DataError("every category is blank or unsure, so there are no classes", str(path), todo)
    warnings += [
        f"category {name!r} counts as a class: where it says that nothing is there, name it in"
        " ingest.camera_traps.blank"
        for name in names.values()
        if name.casefold() in NOTHING
    ]
    index = {number: c for c, number in enumerate(names)}
    classes, mistakes = published_classes(folder, list(names.values()), settings)
    rows = RowList("sequence", "width", "height", source=f"{traps.file} image {{}}")
    unseen: list[LeftOutImage] = []
    everything, unwritten = np.arange(len(names), dtype=np.int32), 0
    for image, frame in file.frames.items():
        if frame.seen is None:
            unseen.append(frame.left_out(image))
            continue
        present = sorted(index[number] for number in frame.seen if number in index)
        is_unsure = bool(frame.seen & unsure)
        if is_unsure or traps.sequence_maximum:
            unwritten += len(names) if is_unsure else len(present)
        if unwritten > MOST_UNWRITTEN:
            what = f"ingest.camera_traps.unsure and sequence_maximum make more than {MOST_UNWRITTEN:,} labels"
            todo = "leave out the images on which nobody is sure, or the classes that no image shows"
            raise DataError(f"{what}: images by classes", str(path), todo)
        rows.add(
            frame.path,
            present,
            image,
            image_id=image,
            unknown=array("i", np.delete(everything, present).tobytes()) if is_unsure else (),
            group=frame.group,
            sequence=frame.sequence,
            width=frame.width,
            height=frame.height,
        )
    if not len(rows) and not file.problems and not rows.problems:
        raise DataError("no image is annotated", str(path), TODO)
    corrupt = [frame.left_out(image) for image, frame in file.corrupt.items()]
    reasons = {"no annotation, so nobody looked": unseen, "marked corrupt in the annotations": corrupt}
    left_out = {reason: images for reason, images in reasons.items() if images}
    return make_rows(rows, classes, [*mistakes, *file.problems], left_out=left_out, warnings=warnings)


def _not_classes(categories: dict[int, str], traps: Settings, path: Path) -> tuple[set[int], set[int]]:
    """Ids of the blank and of the unsure categories; a name that no category has is a mistake, except for the default
    name.
    """
    numbers = {name: number for number, name in categories.items()}
    usual = traps.blank == Settings().blank  # however it is spelt
    blank = {number for name, number in numbers.items() if (name.casefold() if usual else name) in traps.blank}
    named = traps.unsure if usual else (*traps.blank, *traps.unsure)
    if missing := [name for name in dict.fromkeys(named) if name not in numbers]:
        todo = f"the categories are: {some(sorted(numbers), 30)}"
        where = f"ingest.camera_traps, {path}"
        raise DataError(problems=[Problem(f"there is no category {name!r}", where, todo) for name in missing])
    return blank, {numbers[name] for name in traps.unsure}


def _images(annotations: CocoJson, traps: Settings) -> _File:
    file = _File()
    paths: dict[str, str] = {}
    for item in annotations.items("images"):
        number, name = item.get("id"), item.get("file_name")
        file.splits |= SPLIT_WORDS & {str(item.get("split", "")).lower()}
        if not (isinstance(number, str) or is_whole(number)) or not isinstance(name, str):
            what = f"image {str(item)[:80]} needs an id and a file_name"
            file.problems.append(Problem(what, annotations.path.name, TODO))
            file.mistaken.add(str(number))
            continue
        image, path = str(number), f"{traps.images}/{name}" if traps.images else name
        location, sequence = (
            str(item[key]) if _is_name(item.get(key)) and item.get(key) not in (None, "") else None for key in BURST
        )
        frame = _Frame(path, location, sequence, pixels(item.get("width")), pixels(item.get("height")))
        if item.get("corrupt") is True:
            file.corrupt[image] = frame
            continue
        todo = "correct the file"
        if fault := path_fault(path):
            todo = TODO_PATH
        elif strange := [key for key in BURST if not _is_name(item.get(key))]:
            fault = f"{strange[0]} {str(item[strange[0]])[:80]!r} is neither text nor a whole number"
        elif image in file.frames:
            fault = f"image {image} appears twice"
        elif normal_path(path) in paths:
            fault = f"path {path!r} appears twice, first in image {paths[normal_path(path)]}"
            todo = "keep one of the two images, with the annotations of both"
        if fault:
            file.problems.append(Problem(fault, f"{annotations.path.name} image {number}", todo))
            file.mistaken.add(image)
            continue
        paths[normal_path(path)] = image
        file.frames[image] = frame
    return file


def _is_name(value: Any) -> bool:
    return value is None or isinstance(value, str) or is_whole(value)


def _annotate(annotations: CocoJson, file: _File, categories: dict[int, str]) -> None:
    for item in annotations.items("annotations"):
        number, category = item.get("image_id"), item.get("category_id")
        image, unknown = str(number), ""
        if not is_whole(category) or category not in categories:
            unknown = f"category {category!r}"
        elif not isinstance(number, str) and not is_whole(number):
            unknown = f"image {number!r}"
        elif image in file.frames:
            frame = file.frames[image]
            frame.seen = (frame.seen or set()) | {category}
        elif image not in file.corrupt and image not in file.mistaken:
            unknown = f"image {image}"
        if unknown:
            what = f"annotation {item.get('id')} names {unknown}, which does not exist"
            file.problems.append(Problem(what, annotations.path.name, "correct the file"))


def _blank_and_more(file: _File, blank: set[int]) -> list[str]:
    """A warning of images on which nothing is and something, too."""
    both = [frame.path for frame in file.frames.values() if frame.seen and frame.seen & blank and frame.seen - blank]
    if not both:
        return []
    return [
        f"{counted(len(both), 'image')} annotated as blank and as something else, {both[0]!r} first: the latter counts"
    ]


def _without_location(file: _File) -> list[str]:
    """A warning of annotated images whose site the file does not say."""
    frames = [frame for frame in file.frames.values() if frame.seen is not None]
    without = [frame.path for frame in frames if frame.location is None]
    if not without:
        return []
    return [
        f"{len(without)} of {counted(len(frames), 'image')} without a location, {without[0]!r} first: images of one"
        " site may then get into two splits, and the figures flatter"
    ]


def _over_sequences(file: _File) -> None:
    """What is seen on one frame counts for all frames of its sequence."""
    together: dict[str, set[int]] = {}
    for frame in file.frames.values():
        if frame.sequence is not None and frame.seen:
            together.setdefault(frame.sequence, set()).update(frame.seen)
    for frame in file.frames.values():
        if frame.sequence in together:
            frame.seen = together[frame.sequence]


def _tell_sequences_apart(file: _File) -> None:
    """Where locations number their sequences each from 1, the location becomes part of a sequence's name."""
    locations: dict[str, set[str]] = {}
    located = [
        (frame, frame.location, frame.sequence)
        for frame in (*file.frames.values(), *file.corrupt.values())
        if frame.location is not None and frame.sequence is not None
    ]
    for _, location, sequence in located:
        locations.setdefault(sequence, set()).add(location)
    for frame, location, sequence in located:
        if len(locations[sequence]) > 1:
            frame.sequence = f"{location} / {sequence}"
