"""PASCAL VOC 2007 and 2012 as published: VOCdevkit/VOC2012/{Annotations, ImageSets/Main, JPEGImages}."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal
from xml.etree import ElementTree

from pydantic import Field

from capnet.data.annotations.class_list import published_classes
from capnet.data.annotations.paths import DataFolder
from capnet.data.annotations.plain_files import EXPORTS, open_plain, read_list
from capnet.data.annotations.rows import Annotations, RowList, make_rows
from capnet.errors import DataError, Problem, Problems
from capnet.section import InsidePath, Section

if TYPE_CHECKING:
    from capnet.config import Ingest

_NAMES = (
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person pottedplant sheep"
    " sofa train tvmonitor"
)
CLASSES = tuple(_NAMES.split())
KIT = "VOCdevkit"
MOST_XML = 2**20  # bytes of the annotations of one image; a tree of it takes a hundred times as much
TODO = "unpack the VOC archive so that data.root holds VOCdevkit/VOC2012 or VOC2012, or correct ingest.voc"


class Settings(Section):
    train: InsidePath = Field(
        "VOC2012/trainval", description="year folder and image set of the training images; empty: none"
    )
    test: InsidePath = Field(
        "VOC2007/test", description="year folder and image set of the test images; empty: split draws them"
    )
    difficult: Literal["counted", "unknown", "ignored"] = Field(
        "counted", description="a class of which an image only has objects marked difficult"
    )


class _Tree(ElementTree.TreeBuilder):
    """Elements alone: a document type can give each attributes that are not in the file, gigabytes of them."""

    def doctype(self, *_: object) -> None:
        """Refuse it as soon as it begins."""
        raise ValueError("it has a document type (<!DOCTYPE>), which no annotation of VOC has")


def read(folder: DataFolder, settings: Ingest) -> Annotations:
    """Read the training and the test set in the order of their lists; the image id is VOC's, such as 2008_000002.

    One set alone gives no image a split.

    Args:
        folder: the data folder.
        settings: the section ``ingest``.

    Raises:
        DataError: a list of images is missing.
    """
    voc = settings.of(Settings)
    classes, mistakes = published_classes(folder, CLASSES, settings)
    problems = Problems(mistakes)
    base = f"{KIT}/" if folder.path(KIT).is_dir() else ""
    index = {name: c for c, name in enumerate(CLASSES)}
    rows = RowList()
    if not voc.train and not voc.test:
        where = "ingest.voc.train and ingest.voc.test are empty"
        raise DataError("no image set is named", where, "name one, such as VOC2012/trainval")
    for split, chosen in (("train", voc.train), ("test", voc.test)):
        for image, where in _image_set(folder, base, chosen, f"ingest.voc.{split}"):
            year = chosen.partition("/")[0]
            if "/" in image or "\0" in image or ".." in image:
                problems.append(Problem(f"image id {image!r} is no file name", where, "download the archive again"))
                continue
            objects = _objects(folder.path(f"{base}{year}/Annotations/{image}.xml"), index, voc.difficult)
            if isinstance(objects, Problem):
                problems.append(objects)
                continue
            present, unknown = map(sorted, objects)
            path = f"{base}{year}/JPEGImages/{image}.jpg"
            given_split = split if voc.train and voc.test else None
            rows.add(path, present, where, image_id=image, unknown=unknown, given_split=given_split)
    return make_rows(rows, classes, problems)


def _image_set(folder: DataFolder, base: str, chosen: str, setting: str) -> list[tuple[str, str]]:
    """Image ids of a set such as VOC2012/trainval, in its order, each with its line; raises DataError where there is no
    such list.
    """
    if not chosen:
        return []
    year, slash, name = chosen.partition("/")
    if not slash:
        todo = "write year folder and set, such as VOC2012/trainval"
        raise DataError(f"{setting} = {chosen!r} is no image set", "params.yaml", todo)
    path = folder.path(f"{base}{year}/ImageSets/Main/{name}.txt")
    lines = enumerate(read_list(path, f"the list of {setting} = {chosen}", TODO), start=1)
    return [(line.split()[0], f"{path.name} line {number}") for number, line in lines if line.strip()]


def _objects(path: Path, index: dict[str, int], difficult: str) -> tuple[set[int], set[int]] | Problem:
    """Classes with an object that counts; and where difficult ones are ``unknown``, classes with difficult objects
    only.
    """
    try:
        with open_plain(path, MOST_XML) as file:
            root = ElementTree.parse(file, ElementTree.XMLParser(target=_Tree())).getroot()
    except FileNotFoundError:
        return Problem("the annotation of an image is missing", str(path), "unpack the archive again")
    except (ElementTree.ParseError, OSError, LookupError, ValueError) as error:
        return Problem(f"not an annotation: {error}", str(path), "unpack the archive again")
    counted: set[int] = set()
    hard: set[int] = set()
    for item in root.iter("object"):  # parts of a person (head, hand, foot) are <part>, and no object
        name = (item.findtext("name") or "").strip()
        if name not in index:
            todo = f"use the published annotations; {EXPORTS}"
            return Problem(f"object {name!r} is none of the 20 classes", str(path), todo)
        is_hard = (item.findtext("difficult") or "0").strip() == "1"
        (hard if is_hard else counted).add(index[name])
    if difficult == "counted":
        return counted | hard, set()
    return counted, hard - counted if difficult == "unknown" else set()
