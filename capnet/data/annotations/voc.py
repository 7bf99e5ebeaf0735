"""PASCAL VOC 2007 and 2012 as published: VOCdevkit/VOC2012/{Annotations, ImageSets/Main, JPEGImages}."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from capnet.config import Ingest
from capnet.data.annotations import Annotations
from capnet.data.annotations.class_list import published_classes
from capnet.data.annotations.label_lists import LabelLists
from capnet.data.annotations.paths import path_fault
from capnet.errors import DataError, Problem

_NAMES = (
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person pottedplant sheep"
    " sofa train tvmonitor"
)
CLASSES = tuple(_NAMES.split())
KIT = "VOCdevkit"
TODO = "unpack the VOC archive so that data.root holds VOCdevkit/VOC2012 or VOC2012, or correct ingest.voc"


def read(root: Path, settings: Ingest) -> Annotations:
    """Rows of the training and the test set in the order of their lists; the image id is VOC's, such as 2008_000002.

    Raises DataError where a list of images is not there.
    """
    import pandas as pd

    classes, problems = published_classes(root, CLASSES, settings)
    base = f"{KIT}/" if (root / KIT).is_dir() else ""
    index = {name: c for c, name in enumerate(CLASSES)}
    labels, unknown = LabelLists(), LabelLists()
    columns: dict[str, list[str]] = {name: [] for name in ("image_id", "path", "given_split", "where")}
    first: dict[str, str] = {}
    for side, chosen in (("train", settings.voc.train), ("test", settings.voc.test)):
        for image, place in _image_set(root, base, chosen, f"ingest.voc.{side}"):
            year = chosen.partition("/")[0]
            if path_fault(f"{image}.jpg") or "/" in image:
                problems.append(Problem(f"image id {image!r} is no file name", place, "download the archive again"))
                continue
            if image in first:
                problems.append(
                    Problem(
                        f"image id {image!r} is there twice",
                        f"{place}, first in {first[image]}",
                        "choose image sets that share no picture",
                    )
                )
                continue
            first[image] = place
            found = _objects(root / base / year / "Annotations" / f"{image}.xml", index, settings.voc.difficult)
            if isinstance(found, Problem):
                problems.append(found)
                continue
            labels.append(sorted(found[0]))
            unknown.append(sorted(found[1]))
            values = (image, f"{base}{year}/JPEGImages/{image}.jpg", side, f"{base}{year}/Annotations/{image}.xml")
            for column, value in zip(columns.values(), values, strict=True):
                column.append(value)
    if not first and not problems:
        raise DataError(
            "no image set is named",
            "ingest.voc.train and ingest.voc.test are empty",
            "name one, such as VOC2012/trainval",
        )
    every = range(len(CLASSES))
    frame = pd.DataFrame({**columns, "labels": labels.mapped(every), "unknown": unknown.mapped(every)})
    return Annotations(frame.assign(group=None, slice=None), classes, problems)


def _image_set(root: Path, base: str, chosen: str, setting: str) -> Iterator[tuple[str, str]]:
    """Image ids of a set such as VOC2012/trainval, in its order, and the place of each; raises DataError where there is
    no such list.
    """
    if not chosen:
        return
    year, slash, name = chosen.partition("/")
    if not slash or path_fault(f"{chosen}.txt"):
        raise DataError(
            f"{setting} = {chosen!r} is no image set",
            "params.yaml",
            "write year folder and set, such as VOC2012/trainval",
        )
    path = root / base / year / "ImageSets" / "Main" / f"{name}.txt"
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the list of {setting} = {chosen}: {error}", str(path), TODO) from None
    ids = [
        (line.split()[0], f"{path.name} line {number}") for number, line in enumerate(lines, start=1) if line.strip()
    ]
    if not ids:
        raise DataError("the image set is empty", str(path), TODO)
    yield from ids


def _objects(path: Path, index: dict[str, int], difficult: str) -> tuple[set[int], set[int]] | Problem:
    """Classes with an object that counts, and classes of which only difficult objects are there where these are
    ``unknown``.
    """
    try:
        root = ElementTree.parse(path).getroot()
    except FileNotFoundError:
        return Problem("the annotation of a picture is missing", str(path), "unpack the archive again")
    except (ElementTree.ParseError, OSError, UnicodeError, ValueError) as error:
        return Problem(f"not an annotation: {error}", str(path), "unpack the archive again")
    counted: set[int] = set()
    hard: set[int] = set()
    for item in root.iter("object"):  # parts of a person (head, hand, foot) are <part>, and no object
        name = (item.findtext("name") or "").strip()
        if name not in index:
            return Problem(
                f"object {name!r} is none of the 20 classes",
                str(path),
                "use the published annotations, or write a labels.csv",
            )
        is_hard = (item.findtext("difficult") or "0").strip() == "1"
        (hard if is_hard else counted).add(index[name])
    if difficult == "counted":
        return counted | hard, set()
    return counted, hard - counted if difficult == "unknown" else set()
