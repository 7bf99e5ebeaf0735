"""NUS-WIDE with its 81 concepts: the official lists and Groundtruth, or clean lists of images as most papers use them.

Official, as published: ImageList/TrainImagelist.txt (lines such as ``actor\\0001_2124494179.jpg``) and one file a
concept, Groundtruth/TrainTestLabels/Labels_actor_Train.txt, with 0 or 1 a line. Clean: one table for train and one for
test with ``image`` and ``labels``, names or 0-based indices of concepts. How CapNet used the set is not known, so the
choices are settings.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from capnet.data.annotations.class_list import published_classes
from capnet.data.annotations.paths import DataFolder, normal_path, without_suffix
from capnet.data.annotations.plain_files import read_list
from capnet.data.annotations.rows import Annotations, LeftOutImage, RowList, make_rows
from capnet.data.annotations.tables import open_table
from capnet.errors import DataError, Problem, Problems, counted
from capnet.section import InsidePath, Section

if TYPE_CHECKING:
    from capnet.config import Ingest

_NAMES = (
    "airport animal beach bear birds boats book bridge buildings cars castle cat cityscape clouds computer coral cow"
    " dancing dog earthquake elk fire fish flags flowers food fox frost garden glacier grass harbor horses house lake"
    " leaf map military moon mountain nighttime ocean person plane plants police protest railroad rainbow reflection"
    " road rocks running sand sign sky snow soccer sports statue street sun sunset surf swimmers tattoo temple tiger"
    " tower town toy train tree valley vehicle water waterfall wedding whales window zebra"
)
CLASSES = tuple(_NAMES.split())
LIST = "a list of NUS-WIDE"
ASK = (
    "NUS-WIDE is given out by its authors (Lab for Media Search, National University of Singapore): unpack it below"
    " data.root, or correct ingest.nus_wide"
)


class Settings(Section):
    lists: Literal["official", "clean"] = Field(
        "official", description="the official image lists and Groundtruth, or tables of images and their concepts"
    )
    images: InsidePath = Field("Flickr", description="folder of the images")
    clean_train: InsidePath = Field(
        "nus_train.csv", description="clean: table (image, labels) of the training images; empty: none"
    )
    clean_test: InsidePath = Field(
        "nus_test.csv", description="clean: table (image, labels) of the test images; empty: split draws them"
    )
    keep_unlabelled: bool = Field(False, description="keep images without any of the 81 concepts")


def read(folder: DataFolder, settings: Ingest) -> Annotations:
    """Read train, then test, in the order of the lists; the image id is the listed name without its suffix.

    One clean list alone gives no image a split.

    Args:
        folder: the data folder.
        settings: the section ``ingest``.

    Raises:
        DataError: a list is missing or does not fit its labels.
    """
    nus = settings.of(Settings)
    classes, mistakes = published_classes(folder, CLASSES, settings)
    problems = Problems(mistakes)
    divided = nus.lists == "official" or (nus.clean_train and nus.clean_test)
    rows, unlabelled = RowList(), list[LeftOutImage]()
    for split, file in (("train", nus.clean_train), ("test", nus.clean_test)):
        if nus.lists == "official":
            listed = _official(folder, split.capitalize())
        else:
            listed = _clean(folder, file, settings.separator, problems)
        for name, where, present in listed:
            path = f"{nus.images}/{name}" if nus.images else name
            image_id = without_suffix(normal_path(name))
            if not present and not nus.keep_unlabelled:
                unlabelled.append(LeftOutImage(image_id, path))
                continue
            given_split = split if divided else None
            rows.add(path, present, where, image_id=image_id, given_split=given_split)
    if not len(rows) and not problems and not rows.problems:
        raise DataError("the lists name no labelled image", str(folder), ASK)
    left_out = {"no concept (ingest.nus_wide.keep_unlabelled)": unlabelled} if unlabelled else {}
    return make_rows(rows, classes, problems, left_out=left_out)


def _official(folder: DataFolder, split: str) -> Iterator[tuple[str, str, list[int]]]:
    """Name, line and concepts of every image of an official list, Train or Test."""
    import numpy as np

    path = folder.path(f"ImageList/{split}Imagelist.txt")
    names = [line.strip().replace("\\", "/") for line in read_list(path, LIST, ASK)]
    marks = np.zeros((len(names), len(CLASSES)), dtype=bool)
    for c, concept in enumerate(CLASSES):
        file = folder.path(f"Groundtruth/TrainTestLabels/Labels_{concept}_{split}.txt")
        values = [line.strip() for line in read_list(file, LIST, ASK)]
        if len(values) != len(names) or not set(values) <= {"0", "1"}:
            strange = sorted(set(values) - {"0", "1"})
            numbers = f"{counted(len(values), 'line')} for {counted(len(names), 'image')}"
            what = f"{strange[0]!r} where 0 or 1 belongs" if strange else numbers
            raise DataError(f"the labels of concept {concept!r} do not fit the image list: {what}", str(file), ASK)
        marks[:, c] = np.array(values) == "1"
    for number, (name, row) in enumerate(zip(names, marks, strict=True), start=1):
        yield name, f"{path.name} line {number}", row.nonzero()[0].tolist()


def _clean(
    folder: DataFolder, file: str, separator: str, problems: list[Problem]
) -> Iterator[tuple[str, str, list[int]]]:
    """Name, line and concepts of every image of a clean list."""
    if not file:
        return
    path = folder.path(file)
    if not path.is_file():
        todo = f"write a table with the columns image and labels; {ASK}"
        raise DataError("a clean list of NUS-WIDE is missing", str(path), todo)
    table = open_table(path, ("image", "labels"), ("image", "labels"))
    index = {name: c for c, name in enumerate(CLASSES)} | {str(c): c for c in range(len(CLASSES))}
    for line, cells in table:
        row = dict(zip(table.header, cells, strict=True))
        words = _words(row["labels"], separator)
        strange = [word for word in words if word not in index]
        if strange:
            what, todo = f"{strange[0]!r} is none of the 81 concepts", "write a name, or a number from 0 to 80"
            problems.append(Problem(what, table.where(line), todo))
        yield str(row["image"] or ""), table.where(line), sorted({index[word] for word in words if word in index})
    problems += table.problems


def _words(cell: Any, separator: str) -> list[str]:
    if isinstance(cell, list):
        return [str(word) for word in cell]
    return str(cell if cell is not None else "").replace(separator, " ").split()
