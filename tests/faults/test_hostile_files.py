"""Every reader of annotations against every hostile content, in the place of every file that it opens: a sentence with
file and reason, in bounded time and memory, nothing executed, nothing read or written outside of the folder.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from faults.bounded import Outcome, bounded
from faults.hostile_files import TEXTS, coco_files, csv_files, gzip_bomb, parquet_bits, parquet_files, places
from unit.data.native import write_nus_wide, write_voc

from capnet.config import parse
from capnet.data.annotations.paths import DataFolder
from capnet.data.annotations.reading import read_annotations
from capnet.data.splits.id_lists import read_id_list
from capnet.errors import DataError

T = TypeVar("T")
SHARE = 1 if os.environ.get("FAULTS") == "all" else 4  # make test-faults sets it
PARAMS = {
    "csv": {"format": "csv"},
    "gz": {"format": "csv"},
    "parquet": {"format": "csv"},
    "coco": {"format": "coco"},
    "camera_traps": {"format": "camera_traps"},
    "voc": {"format": "voc"},
    "nus_wide": {"format": "nus_wide"},
    "nus_clean": {"format": "nus_wide"},
}
INGEST: dict[str, dict] = {
    "gz": {"labels": "labels.csv.gz"},
    "parquet": {"labels": "labels.parquet"},
    "coco": {"coco": {"train": "annotations.json", "test": ""}},
    "voc": {"voc": {"train": "VOC2012/trainval", "test": ""}},
    "nus_clean": {"nus_wide": {"lists": "clean", "clean_test": ""}},
}
SLOTS = (  # reader and the file that is replaced
    ("csv", "labels.csv"),
    ("csv", "classes.csv"),
    ("gz", "labels.csv.gz"),
    ("parquet", "labels.parquet"),
    ("coco", "annotations.json"),
    ("coco", "classes.csv"),
    ("camera_traps", "annotations.json"),
    ("voc", "VOC2012/ImageSets/Main/trainval.txt"),
    ("voc", "VOC2012/Annotations/a.xml"),
    ("nus_wide", "ImageList/TrainImagelist.txt"),
    ("nus_wide", "Groundtruth/TrainTestLabels/Labels_cat_Train.txt"),
    ("nus_clean", "nus_train.csv"),
)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with valid annotations of every format, and a working directory that must stay empty."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "labels.csv").write_text("path,labels\na.jpg,cat\n")
    write_voc(folder, "VOC2012", "trainval", {"a": [1]}, b"")
    for split in ("Train", "Test"):
        write_nus_wide(folder, split, {"a/1.jpg": [11]})
    return folder


def read(reader: str, root: Path) -> Outcome:
    """What the reader says; problems that it collected are refusals, as ingest makes them."""
    params = parse({"data": PARAMS[reader], "ingest": INGEST.get(reader, {})})

    def call() -> None:
        problems = read_annotations(DataFolder(root), params).problems
        if problems:
            raise DataError(problems=problems)

    return bounded(call)


def part(cases: Iterable[T], start: int = 0) -> list[T]:
    """The cases of this run: all of them, or every SHARE-th from another one in each place on."""
    return list(cases)[start % SHARE :: SHARE]


def faults(result: dict[str, Outcome]) -> list[str]:
    peak = max(item.megabytes for item in result.values()), max(item.seconds for item in result.values())
    print(f"{len(result)} cases, at most {peak[0]} MB and {peak[1]:.1f} s")
    wrong = [f"{name}: {item}" for name, item in result.items() if not (item.is_bounded and item.has_three_parts)]
    wrong += [
        f"{name}: a stranger's text of {len(item.text)} letters"
        for name, item in result.items()
        if "root:x:" in item.text
    ]
    left = [path.name for path in Path().iterdir()]
    return wrong + [f"something was executed or written: {left}"] * bool(left)


@pytest.mark.parametrize(("reader", "file"), SLOTS)
def test_any_content_in_the_place_of_an_annotation(root: Path, reader: str, file: str) -> None:
    path, result = root / file, {}
    for name, content in part(TEXTS.items(), SLOTS.index((reader, file))):
        path.write_bytes(content)
        result[name] = read(reader, root)
    assert not faults(result)


@pytest.mark.parametrize(("reader", "file"), SLOTS)
def test_no_file_in_the_place_of_an_annotation(root: Path, reader: str, file: str) -> None:
    path, result = root / file, {}
    for name, make in part(places(root, file), SLOTS.index((reader, file))):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        make()
        result[name] = read(reader, root)
    assert not faults(result)


CASES: dict[str, tuple[str, str, Callable[[], Iterator[tuple[str, bytes]]]]] = {
    "coco": ("coco", "annotations.json", coco_files),
    "camera traps": ("camera_traps", "annotations.json", coco_files),
    "csv": ("csv", "labels.csv", csv_files),
    "parquet": ("parquet", "labels.parquet", parquet_files),
    "parquet bits": ("parquet", "labels.parquet", parquet_bits),
    "gzip": ("gz", "labels.csv.gz", lambda: iter([("a bomb", gzip_bomb())])),
}


@pytest.mark.parametrize("kind", CASES)
def test_any_value_in_a_valid_file(root: Path, kind: str) -> None:
    reader, file, make = CASES[kind]
    result = {}
    cases = part(make())
    if kind == "parquet bits" and SHARE > 1:  # each takes a process; an odd step, or all flips would be of one bit
        cases = list(make())[:: 4 * SHARE - 1]
    for name, content in cases:
        (root / file).write_bytes(content)
        result[name] = read(reader, root)
    assert not faults(result)
    assert len([item for item in result.values() if item.kind == "refused"]) >= len(result) / 4


def test_lists_of_ids(root: Path) -> None:
    result = {}

    def read(path: Path) -> None:
        _, problems = read_id_list(path, ["a"], "ingest.train_list")
        if problems:
            raise DataError(problems=problems)

    for name, content in part(TEXTS.items()):
        (root / "list.txt").write_bytes(content)
        result[name] = bounded(lambda: read(root / "list.txt"))
    for name, make in part(places(root, "other.txt")):
        (root / "list.txt").unlink(missing_ok=True)
        make()
        (root / "other.txt").rename(root / "list.txt")
        result[name] = bounded(lambda: read(DataFolder(root).path("list.txt")))  # as ingest opens it
        if name != "a link out":  # which is refused there
            result[f"{name}, read"] = bounded(lambda: read(root / "list.txt"))
        if (root / "list.txt").is_dir():
            (root / "list.txt").rmdir()
    assert not faults(result)
