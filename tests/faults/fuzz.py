"""Coverage-guided fuzzing (atheris) of everything that reads a stranger's bytes: `python -m faults.fuzz TARGET` and
options of libFuzzer, or `make fuzz SECONDS=60`. An execution passes where it returns or refuses in three parts.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import atheris
import torch

with atheris.instrument_imports(include=["capnet", "ijson", "yaml"]):
    import pandas as pd

    from capnet.config import load, parse
    from capnet.contracts import (
        MANIFEST_COLUMNS,
        PREDICTION_COLUMNS,
        read_classes,
        read_predictions,
        read_split,
        read_tensors,
        write_predictions,
        write_split,
        write_tensors,
    )
    from capnet.contracts.stage_json import read_evaluation
    from capnet.data.annotations.paths import DataFolder
    from capnet.data.annotations.reading import read_annotations
    from capnet.data.images.decode import Unusable, read_rgb
    from capnet.errors import CapnetError
    from capnet.serving.request import Clock, Limits, request_files

from faults.hostile_files import TEXTS, coco_file, parquet
from faults.hostile_images import KINDS, whole

Target = Callable[[Path, bytes], object]


def reader(name: str, file: str, **settings: object) -> Target:
    """Annotations of a format, of which one file is the bytes."""
    params = parse({"data": {"format": name}, "ingest": settings})

    def target(root: Path, data: bytes) -> None:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        (root / "VOC2012/ImageSets/Main").mkdir(parents=True, exist_ok=True)
        if name == "voc" and not file.endswith(".txt"):
            (root / "VOC2012/ImageSets/Main/trainval.txt").write_text("a\n")
        read_annotations(DataFolder(root), params)

    return target


def contract(file: str, read: Callable[[Path], object]) -> Target:
    def target(root: Path, data: bytes) -> None:
        (root / file).write_bytes(data)
        read(root / file)

    return target


def request(root: Path, data: bytes) -> None:
    half = len(data) // 2
    values = [data, data[:half].decode("latin-1"), {"a": data[half:]}]
    request_files(
        pd.DataFrame({"image": pd.Series(values, dtype=object)}), root, Clock(Limits(root=str(root), seconds=5))
    )


VOC = {"voc": {"train": "VOC2012/trainval", "test": ""}}
TARGETS: dict[str, Target] = {
    "coco": reader("coco", "annotations.json", coco={"train": "annotations.json", "test": ""}),
    "camera_traps": reader("camera_traps", "annotations.json"),
    "csv": reader("csv", "labels.csv"),
    "parquet": reader("csv", "labels.parquet", labels="labels.parquet"),
    "voc_xml": reader("voc", "VOC2012/Annotations/a.xml", **VOC),
    "voc_list": reader("voc", "VOC2012/ImageSets/Main/trainval.txt", **VOC),
    "nus_wide": reader("nus_wide", "nus_train.csv", nus_wide={"lists": "clean", "clean_test": ""}),
    "settings": contract("params.yaml", load),
    "classes": contract("classes.json", read_classes),
    "evaluation": contract("evaluation.json", lambda path: read_evaluation(path.parent)),
    "split": contract("split.parquet", read_split),
    "predictions": contract("predictions.parquet", read_predictions),
    "tensors": contract("model.safetensors", read_tensors),
    "image": contract("a.jpg", read_rgb),
    "request": request,
}


def seeds(name: str, folder: Path) -> None:
    """What a fuzzer starts from: valid files and those of the corpus."""
    result = [content for content in TEXTS.values() if len(content) < 10_000]
    if name in ("image", "request"):
        result = [whole(kind, (9, 7)) for kind in KINDS]
    elif name in ("coco", "camera_traps", "classes", "evaluation"):
        result.append(coco_file({}))
    elif name in ("parquet", "split", "predictions"):
        result.append(parquet(path=["a.jpg"], labels=["cat"]))
    for number, content in enumerate(result):
        (folder / str(number)).write_bytes(content)
    row = dict.fromkeys(MANIFEST_COLUMNS, "a") | {"labels": [0], "unknown": [1], "width": 3, "height": 2}
    if name == "split":
        write_split(folder / "valid", pd.DataFrame([row | {"split": "train"}]))
    elif name == "predictions":
        scored = dict.fromkeys(PREDICTION_COLUMNS, "a") | {"split": "val", "scores": [0.25, 0.5]}
        write_predictions(folder / "valid", pd.DataFrame([scored]))
    elif name == "tensors":
        write_tensors(folder / "valid", {"a": torch.zeros(2, 3)}, {"b": 1})


def main() -> None:
    name, *options = sys.argv[1:]
    warnings.simplefilter("ignore")
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None  # a file on a disk takes longer than reading it
    corpus, root = (Path(tempfile.mkdtemp(prefix=f"fuzz-{name}-", dir=memory)) for _ in range(2))
    seeds(name, corpus)
    target = TARGETS[name]

    def once(data: bytes) -> None:
        try:
            target(root, data)
        except CapnetError as error:
            if not all(problem.what and problem.where and problem.todo for problem in error.problems):
                raise AssertionError(f"not in three parts: {error}") from error
        except Unusable as error:
            if not str(error):
                raise AssertionError("no reason") from error

    try:
        atheris.Setup([sys.argv[0], str(corpus), "-rss_limit_mb=2048", "-timeout=20", "-max_len=8192", *options], once)
        atheris.Fuzz()
    finally:
        for folder in (corpus, root):
            shutil.rmtree(folder, ignore_errors=True)
        os.chdir("/")


if __name__ == "__main__":
    main()
