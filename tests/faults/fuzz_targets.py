"""What is fuzzed: everything that reads a stranger's bytes, and the files that a fuzzer starts from.

Valid files are among them: from damaged ones alone a fuzzer does not find what lies behind the first refusal.
"""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from faults.fuzz_edits import MARK, edited, edits
from faults.hostile_files import TEXTS, coco_file, parquet
from faults.hostile_images import KINDS, whole

from capnet.config import load, parse
from capnet.contracts import (
    MANIFEST_COLUMNS,
    PREDICTION_COLUMNS,
    make_classes,
    read_classes,
    read_predictions,
    read_split,
    read_tensors,
    write_classes,
    write_predictions,
    write_split,
    write_tensors,
)
from capnet.contracts.stage_json import read_evaluation
from capnet.data.annotations.paths import DataFolder
from capnet.data.annotations.reading import read_annotations
from capnet.data.images.decode import Unusable, read_rgb
from capnet.errors import CapnetError, DataError
from capnet.serving.request import Clock, Limits, request_files

Target = Callable[[Path, bytes], Any]


def _reader(name: str, file: str, **settings: object) -> Target:
    """Annotations of a format, of which one file is the bytes; refused as ingest refuses what has mistakes."""
    params = parse({"data": {"format": name}, "ingest": settings})

    def target(root: Path, data: bytes) -> object:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        if name == "voc":
            _voc_beside(root, path)
        annotations = read_annotations(DataFolder(root), params)
        if annotations.problems:
            raise DataError(problems=annotations.problems)
        return annotations

    return target


def _voc_beside(root: Path, path: Path) -> None:
    """The list of the image whose annotation is fuzzed, or the annotation that a list names."""
    listed, annotation = root / VOC_LIST, root / VOC_XML
    for other, content in ((listed, b"a\n"), (annotation, VALID["voc_xml"])):
        if other != path and not other.is_file():
            other.parent.mkdir(parents=True, exist_ok=True)
            other.write_bytes(content)


def _contract(file: str, read: Callable[[Path], object]) -> Target:
    def target(root: Path, data: bytes) -> object:
        (root / file).write_bytes(data)
        return read(root / file)

    return target


def _images(root: Path, *values: object) -> list[Path]:
    limits = Limits(root=str(root), seconds=5)
    return request_files(pd.DataFrame({"image": pd.Series(values, dtype=object)}), root, Clock(limits))


def _request(root: Path, data: bytes) -> list[Path]:
    """An image as bytes and in base64; if the last byte is even, as text, which may name a file below the root, and
    within another object.
    """
    if data[-1:] and data[-1] % 2 == 0:
        half = len(data) // 2
        return _images(root, data[:half].decode("latin-1"), {"a": data[half:]})
    return _images(root, data, base64.b64encode(data).decode())


VOC_LIST, VOC_XML = "VOC2012/ImageSets/Main/trainval.txt", "VOC2012/Annotations/a.xml"
VOC = {"voc": {"train": "VOC2012/trainval", "test": ""}}
TARGETS: dict[str, Target] = {
    "coco": _reader("coco", "annotations.json", coco={"train": "annotations.json", "test": ""}),
    "camera_traps": _reader("camera_traps", "annotations.json"),
    "csv": _reader("csv", "labels.csv"),
    "parquet": _reader("csv", "labels.parquet", labels="labels.parquet"),
    "voc_xml": _reader("voc", VOC_XML, **VOC),
    "voc_list": _reader("voc", VOC_LIST, **VOC),
    "nus_wide": _reader("nus_wide", "nus_train.csv", nus_wide={"lists": "clean", "clean_test": ""}),
    "settings": _contract("params.yaml", load),
    "classes": _contract("classes.json", read_classes),
    "evaluation": _contract("evaluation.json", lambda path: read_evaluation(path.parent)),
    "split": _contract("split.parquet", read_split),
    "predictions": _contract("predictions.parquet", read_predictions),
    "tensors": _contract("model.safetensors", read_tensors),
    "image": _contract("a.jpg", read_rgb),
    "request": _request,
}


def _written(write: Callable[[Path], object]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        write(path)
        return path.read_bytes()


def _row(columns: tuple[str, ...], **values: object) -> pd.DataFrame:
    return pd.DataFrame([dict.fromkeys(columns, "a") | values])


_MEANS = {f"{name}{end}": 0.5 for name in ("mAP", "head", "medium", "tail") for end in ("", "_low", "_high")}
_MEASURED = {
    "schema": 1,
    "capnet": _MEANS,
    "zero_shot": _MEANS,
    "differences": {"capnet-zero_shot": {"mAP": 0.2, "mAP_low": 0.15, "mAP_high": 0.25}},
    "slices": {"night": {"capnet": _MEANS}},
    "slice_info": {"night": {"test_rows": 350, "left_out": []}},
    "left_out": ["cat"],
    "test_rows": 700,
    "model_md5": "0" * 32,
}
_OBJECT = (
    b"<object><name>cat</name><pose>Left</pose><truncated>0</truncated><difficult>%d</difficult><bndbox><xmin>1</xmin>"
    b"<ymin>2</ymin><xmax>8</xmax><ymax>9</ymax></bndbox><part><name>head</name></part></object>"
)
VALID: dict[str, bytes] = {
    "coco": coco_file({}),
    "camera_traps": coco_file({}),
    "csv": b'path,labels,unknown,group,split\na.jpg,cat|dog,,"site 1",train\n"b, c.jpg",,dog,,test\n',
    "parquet": parquet(path=["a.jpg"], labels=["cat"]),
    "voc_xml": b'<?xml version="1.0" encoding="UTF-8"?>\n<annotation><folder>VOC2012</folder><filename>a.jpg</filename>'
    b"<size><width>10</width><height>10</height><depth>3</depth></size>%s%s</annotation>" % (_OBJECT % 0, _OBJECT % 1),
    "voc_list": b"a\n",
    "nus_wide": b"image,labels\nactor/1.jpg,sky 12\n2.jpg,water\n",
    "settings": b"data: {format: coco, root: photos}\ntrain:\n  epochs: 3\n  loss: {name: asl}\n"
    b"evaluate:\n  threshold: {objective: recall>=0.9}\n",
    "classes": _written(lambda path: write_classes(path, make_classes(["cat", "red fox"], {}, ["cat"]))),
    "evaluation": json.dumps(_MEASURED).encode(),
    "split": _written(
        lambda path: write_split(
            path, _row(MANIFEST_COLUMNS, labels=[0], unknown=[1], width=3, height=2).assign(split="train")
        )
    ),
    "predictions": _written(
        lambda path: write_predictions(path, _row(PREDICTION_COLUMNS, split="val", scores=[0.25, 0.5]))
    ),
    "tensors": _written(lambda path: write_tensors(path, {"a": torch.zeros(2, 3)}, {"b": 1})),
    "image": whole("JPEG", (9, 7)),
    "request": whole("JPEG", (9, 7)),
}


EDITED = ("coco", "camera_traps", "parquet", "settings", "classes", "evaluation", "split", "predictions", "tensors")


def read(name: str, root: Path, data: bytes) -> object:
    """What the target of that name makes of bytes, or of the edit of its valid file that they are."""
    content = edited(VALID[name], data) if name in EDITED and data.startswith(MARK) else data
    return None if content is None else TARGETS[name](root, content)


def is_read(name: str, root: Path, data: bytes) -> bool:
    """False where a file is refused, which must be in three parts, or cannot be written."""
    try:
        return read(name, root, data) is not None
    except CapnetError as error:
        if not all(problem.what and problem.where and problem.todo for problem in error.problems):
            raise AssertionError(f"not in three parts: {error}") from error
    except Unusable as error:
        if not str(error):
            raise AssertionError("no reason") from error
    return False


def seeds(name: str) -> list[bytes]:
    """What a fuzzer of a target starts from: a valid file first, then hostile ones, or edits that change nothing."""
    if name in ("image", "request"):
        return [VALID[name], *(whole(kind, (9, 7)) for kind in KINDS)]
    hostile = (content for content in TEXTS.values() if len(content) < 10_000)
    return [VALID[name], *(edits(VALID[name]) if name in EDITED else ()), *hostile]
