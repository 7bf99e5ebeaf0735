"""NUS-WIDE with its 81 concepts: the official lists and Groundtruth, or clean lists of pictures as most papers use
them.

Official, as published: ImageList/TrainImagelist.txt (lines such as ``actor\\0001_2124494179.jpg``) and one file a
concept, Groundtruth/TrainTestLabels/Labels_actor_Train.txt, with 0 or 1 a line. Clean: a table a side with ``image``
and ``labels``, names or 0-based indices of concepts. How CapNet used the set is not known, so the choices are settings.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from capnet.config import Ingest, NusWide
from capnet.data.annotations import Annotations
from capnet.data.annotations.class_list import published_classes
from capnet.data.annotations.label_lists import LabelLists
from capnet.data.annotations.paths import normal_path, path_fault, without_suffix
from capnet.data.annotations.tables import open_table
from capnet.errors import DataError, Problem

_NAMES = (
    "airport animal beach bear birds boats book bridge buildings cars castle cat cityscape clouds computer coral cow"
    " dancing dog earthquake elk fire fish flags flowers food fox frost garden glacier grass harbor horses house lake"
    " leaf map military moon mountain nighttime ocean person plane plants police protest railroad rainbow reflection"
    " road rocks running sand sign sky snow soccer sports statue street sun sunset surf swimmers tattoo temple tiger"
    " tower town toy train tree valley vehicle water waterfall wedding whales window zebra"
)
CLASSES = tuple(_NAMES.split())
ASK = (
    "NUS-WIDE is given out by its authors (Lab for Media Search, National University of Singapore): unpack it below"
    " data.root, or correct ingest.nus_wide"
)


@dataclass
class _Rows:
    settings: NusWide
    labels: LabelLists = field(default_factory=LabelLists)
    columns: dict[str, list[str]] = field(
        default_factory=lambda: {name: [] for name in ("image_id", "path", "given_split", "where")}
    )
    first: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    unlabelled: int = 0

    def add(self, name: str, side: str, where: str, present: list[int]) -> None:
        """One picture, named as in a list; without a concept it is left out unless the setting keeps it."""
        if not present and not self.settings.keep_unlabelled:
            self.unlabelled += 1
            return
        path = f"{self.settings.images}/{name}" if self.settings.images else name
        image = without_suffix(normal_path(name))
        fault = path_fault(path)
        if fault or image in self.first:
            what = fault or f"picture {name!r} is there twice"
            self.problems.append(
                Problem(what, where + ("" if fault else f", first in {self.first[image]}"), "correct the list")
            )
            return
        self.first[image] = where
        self.labels.append(present)
        for column, value in zip(self.columns.values(), (image, normal_path(path), side, where), strict=True):
            column.append(value)


def read(root: Path, settings: Ingest) -> Annotations:
    """Rows of train, then test, in the order of the lists; the image id is the listed name without its ending.

    Raises DataError where a list is missing or does not fit its labels.
    """
    import pandas as pd

    choices = settings.nus_wide
    classes, problems = published_classes(root, CLASSES, settings)
    rows = _Rows(choices)
    if choices.lists == "official":
        for side, name in (("train", "Train"), ("test", "Test")):
            for image, where, present in _official(root, name):
                rows.add(image, side, where, present)
    else:
        for side, file in (("train", choices.clean_train), ("test", choices.clean_test)):
            for image, where, present in _clean(root, file, settings, rows.problems):
                rows.add(image, side, where, present)
    problems += rows.problems
    if not rows.first and not problems:
        raise DataError("the lists name no labelled picture", str(root), ASK)
    frame = pd.DataFrame({**rows.columns, "labels": rows.labels.mapped(range(len(CLASSES)))})
    frame["unknown"] = LabelLists.empty(len(frame)).mapped(())
    left_out = {"no concept (ingest.nus_wide.keep_unlabelled)": rows.unlabelled} if rows.unlabelled else {}
    return Annotations(frame.assign(group=None, slice=None), classes, problems, left_out=left_out)


def _official(root: Path, side: str) -> Iterator[tuple[str, str, list[int]]]:
    """Name, place and concepts of every picture of the official list of a side."""
    import numpy as np

    path = root / "ImageList" / f"{side}Imagelist.txt"
    names = [line.strip().replace("\\", "/") for line in _lines(path)]
    marks = np.zeros((len(names), len(CLASSES)), dtype=bool)
    for c, concept in enumerate(CLASSES):
        file = root / "Groundtruth" / "TrainTestLabels" / f"Labels_{concept}_{side}.txt"
        values = [line.strip() for line in _lines(file)]
        if len(values) != len(names) or not set(values) <= {"0", "1"}:
            strange = sorted(set(values) - {"0", "1"})
            what = (
                f"{len(values)} lines for {len(names)} pictures"
                if not strange
                else f"{strange[0]!r} where 0 or 1 belongs"
            )
            raise DataError(f"the labels of concept {concept!r} do not fit the image list: {what}", str(file), ASK)
        marks[:, c] = np.array(values) == "1"
    for number, (name, row) in enumerate(zip(names, marks, strict=True), start=1):
        yield name, f"{path.name} line {number}", row.nonzero()[0].tolist()


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read a list of NUS-WIDE: {error}", str(path), ASK) from None
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise DataError("a list of NUS-WIDE is empty", str(path), ASK)
    return lines


def _clean(root: Path, file: str, settings: Ingest, problems: list[Problem]) -> Iterator[tuple[str, str, list[int]]]:
    """Name, place and concepts of every picture of a clean list."""
    if not file:
        return
    path = root / file
    if not path.is_file():
        raise DataError(
            "a clean list of NUS-WIDE is missing", str(path), f"write a table with the columns image and labels; {ASK}"
        )
    table = open_table(path, ("image", "labels"), ("image", "labels"))
    image, labels = (table.header.index(name) if name in table.header else 0 for name in ("image", "labels"))
    index = {name: c for c, name in enumerate(CLASSES)} | {str(c): c for c in range(len(CLASSES))}
    for line, cells in table:
        words = _words(cells[labels], settings.separator)
        strange = [word for word in words if word not in index]
        if strange:
            problems.append(
                Problem(
                    f"{strange[0]!r} is none of the 81 concepts",
                    table.where(line),
                    "write a name, or a number from 0 to 80",
                )
            )
        yield str(cells[image] or ""), table.where(line), sorted({index[word] for word in words if word in index})
    problems += table.problems


def _words(cell: Any, separator: str) -> list[str]:
    if isinstance(cell, list):
        return [str(word) for word in cell]
    return str(cell if cell is not None else "").replace(separator, " ").split()
