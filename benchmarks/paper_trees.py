"""Small made data sets in the layouts of VOC, COCO and NUS-WIDE, and random weights: what a dry run of the paper
command uses.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.paper_lists import COCO_LIST, PUBLISHED, ListFile, Published, find, ids_hash, list_ids
from capnet.contracts import sha256_file, write_json
from capnet.data.annotations.readers import nus_wide, voc
from capnet.data.splits.published import Benchmark
from capnet.errors import ConfigError
from capnet.streams import quiet

NOTE = "made.json"  # in the made folder: what its lists, counts and weights are
FAULTS = ("list", "count", "weights")
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
TOWERS: dict[str, dict[str, Any]] = {
    "RN50": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None},
    "ViT-B-16": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16},
}
HEAD, MEDIUM = 110, 24  # training images of the one head class, and of each medium class
COCO_TRAIN, COCO_VAL = "annotations/instances_train2017.json", "annotations/instances_val2017.json"
Labels = dict[str, list[int]]


@dataclass(frozen=True)
class Made:
    """A made data set: what is published of it, its counts, and the backbone that each weight file's hash belongs
    to.
    """

    published: Published
    counts: Benchmark
    hashes: Mapping[str, str]
    weights: Mapping[str, Path]

    @property
    def models(self) -> dict[str, str]:
        """open_clip's name of the small model that stands for a backbone."""
        return {backbone: model_name(backbone) for backbone in self.weights}


def model_name(backbone: str) -> str:
    return f"dry-run-{backbone}-quickgelu"


def make(name: str, data: Path, fault: str = "") -> Made:
    """Write a small data set and random weights, or take what an earlier dry run wrote there.

    Args:
        name: voc-lt, coco-lt or nus-wide.
        data: folder to write into.
        fault: what to damage behind what was noted, one of FAULTS, or "".

    Returns:
        The made set with what a run has to find in it.

    Raises:
        ConfigError: the folder holds something else.
    """
    import open_clip

    if not (data / NOTE).is_file():
        if data.is_file() or (data.is_dir() and any(data.iterdir())):
            raise ConfigError(
                "a dry run makes its own data, and this folder holds something else",
                str(data),
                "name an empty folder, or leave --dry-run out",
            )
        _write(name, data)
    note = json.loads((data / NOTE).read_text())
    if note["benchmark"] != name:
        raise ConfigError(
            f"an earlier dry run made {note['benchmark']} there, not {name}", str(data), "name another folder"
        )
    open_clip.add_model_config(data / "models")
    weights = {backbone: data / "weights" / f"{backbone}.pt" for backbone in TOWERS}
    if fault:
        damage(name, data, fault, weights)
    files = tuple(ListFile(**file) for file in note["files"])
    published = Published(files, note["splits"], tuple(note["test_counts"]))
    counts = Benchmark(note["counts"]["train"], note["counts"]["test"], tuple(note["counts"]["counts"]))
    return Made(published, counts, note["weights"], weights)


def damage(name: str, data: Path, fault: str, weights: Mapping[str, Path]) -> None:
    """Damage a made set: one id of its training list, one label behind its counts, or a byte of its weight files."""
    if fault == "weights":
        for path in weights.values():
            path.write_bytes(path.read_bytes() + b"0")
        return
    file = {
        "voc-lt": "VOC2012/ImageSets/Main/trainval.txt",
        "coco-lt": COCO_LIST,
        "nus-wide": "ImageList/TrainImagelist.txt",
    }[name]
    path = find(data, file)
    lines = path.read_text().splitlines()
    if fault == "list" or name == "nus-wide":  # of NUS-WIDE no count per class is published
        other = [f"{900:012}"] if name == "coco-lt" else []
        path.write_text("\n".join(lines[:-1] + other) + "\n")
    elif name == "voc-lt":
        annotation = data / "VOCdevkit/VOC2012/Annotations" / f"{lines[0]}.xml"
        annotation.write_text(annotation.read_text().replace("<object><name>person</name></object>", ""))
    else:
        content = json.loads((data / COCO_TRAIN).read_text())
        content["annotations"].pop(0)
        write_json(data / COCO_TRAIN, content)


def made_labels(n_classes: int, head: int, rare: int, prefix: str, first: int, *, train: bool) -> Labels:
    """Labels by image id: one head class on many images, two medium ones, the others on ``rare`` images each; in a test
    split all on two.
    """
    others = [c for c in range(n_classes) if c != head]
    times = dict.fromkeys(others, 2)
    if train:
        times = {c: MEDIUM if c in others[:2] else rare for c in others}
    tokens = [c for c in others for _ in range(times[c])]
    rows = max(HEAD + 6, len(tokens) // 2) if train else len(tokens)
    labels_of: list[set[int]] = [set() for _ in range(rows)]
    for number, c in enumerate(tokens):
        labels_of[number % rows].add(c)
    for row in range(HEAD if train else rows // 2):
        labels_of[row].add(head)
    return {f"{prefix}{first + row:06}": sorted(labels) for row, labels in enumerate(labels_of) if labels}


def _write(name: str, data: Path) -> None:
    data.mkdir(parents=True, exist_ok=True)
    files, splits, n_classes, labels = {"voc-lt": _voc, "coco-lt": _coco, "nus-wide": _nus_wide}[name](data)
    train, test = labels
    counts, test_counts = ([sum(c in row for row in part.values()) for c in range(n_classes)] for part in labels)
    listed = {file: list_ids(find(data, file), name) for file in files}
    note = {
        "benchmark": name,
        "files": [asdict(ListFile(file, len(ids), ids_hash(ids) if splits else "")) for file, ids in listed.items()],
        "splits": {split: ids_hash(rows) for split, rows in (("train", train), ("test", test))} if splits else {},
        "counts": {"train": len(train), "test": len(test), "counts": counts},
        "test_counts": test_counts if PUBLISHED[name].test_counts else [],
        "weights": _weights(data),
    }
    write_json(data / NOTE, note)


def _voc(data: Path) -> tuple[list[str], bool, int, tuple[Labels, Labels]]:
    kit, person = data / "VOCdevkit", voc.CLASSES.index("person")
    train, test = (made_labels(20, person, 4, prefix, 1, train=part) for prefix, part in (("2008_", True), ("", False)))
    for year, image_set, labels in (("VOC2012", "trainval", train), ("VOC2007", "test", test)):
        _text(kit / year / "ImageSets/Main" / f"{image_set}.txt", labels)
        for image, row in labels.items():
            objects = "".join(f"<object><name>{voc.CLASSES[c]}</name></object>" for c in row)
            _text(kit / year / "Annotations" / f"{image}.xml", [f"<annotation>{objects}</annotation>"])
        _images(kit / year / "JPEGImages", labels)
    return ["VOC2012/ImageSets/Main/trainval.txt", "VOC2007/ImageSets/Main/test.txt"], True, 20, (train, test)


def _coco(data: Path) -> tuple[list[str], bool, int, tuple[Labels, Labels]]:
    train, test = (made_labels(80, 0, 3, "000000", first, train=part) for first, part in ((1, True), (1001, False)))
    # images of train2017 that the list does not name
    more = {f"{900 + number:012}": [number, number + 1] for number in range(5)}
    names = [{"id": c + 1, "name": "person" if c == 0 else f"made class {c}"} for c in range(80)]
    for file, folder, labels in ((COCO_TRAIN, "train2017", train | more), (COCO_VAL, "val2017", test)):
        images = [{"id": int(image), "file_name": f"{image}.jpg", "width": 40, "height": 40} for image in labels]
        boxes = [(int(image), c) for image, row in labels.items() for c in row]
        marks = [
            {"id": n, "image_id": image, "category_id": c + 1, "bbox": [1, 1, 9, 9], "area": 81, "iscrowd": 0}
            for n, (image, c) in enumerate(boxes)
        ]
        (data / file).parent.mkdir(parents=True, exist_ok=True)
        write_json(data / file, {"images": images, "categories": names, "annotations": marks})
        _images(data / folder, labels)
    _text(data / COCO_LIST, train)
    return [COCO_LIST], True, 80, (train, test)


def _nus_wide(data: Path) -> tuple[list[str], bool, int, tuple[Labels, Labels]]:
    person = nus_wide.CLASSES.index("person")
    train, test = (made_labels(81, person, 3, "made/", first, train=part) for first, part in ((1, True), (1001, False)))
    for part, labels in (("Train", train), ("Test", test)):
        # images without a concept, which are left out
        listed = {**labels, **{f"made/{part}{number}": [] for number in range(3)}}
        _text(data / "ImageList" / f"{part}Imagelist.txt", (f"{image}.jpg".replace("/", "\\") for image in listed))
        for c, concept in enumerate(nus_wide.CLASSES):
            _text(
                data / "Groundtruth/TrainTestLabels" / f"Labels_{concept}_{part}.txt",
                (str(int(c in row)) for row in listed.values()),
            )
        _images(data / "Flickr", listed)
    return ["ImageList/TrainImagelist.txt", "ImageList/TestImagelist.txt"], False, 81, (train, test)


def _text(path: Path, lines: Iterator[str] | Sequence[str] | Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _images(folder: Path, labels: Labels) -> None:
    """Coarse noise, another for each image."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(len(labels))
    for image in labels:
        path = folder / f"{image}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).resize((40, 40)).save(path, quality=90)


def _weights(data: Path) -> dict[str, str]:
    """Random weights of small models, as OpenAI writes its own; returns the backbone by the file's hash."""
    import open_clip
    import torch

    (data / "models").mkdir()
    (data / "weights").mkdir()
    for backbone, vision in TOWERS.items():
        config = {"embed_dim": 24, "quick_gelu": True, "vision_cfg": vision, "text_cfg": TEXT}
        (data / "models" / f"{model_name(backbone)}.json").write_text(json.dumps(config))
    open_clip.add_model_config(data / "models")
    hashes = {}
    for backbone in TOWERS:
        with torch.random.fork_rng(), quiet({"": logging.ERROR}):  # open_clip warns that weights are random
            torch.manual_seed(0)
            model = open_clip.create_model(model_name(backbone), pretrained=None)
        path = data / "weights" / f"{backbone}.pt"
        write_as_openai_does(model, path)
        hashes[sha256_file(path)] = backbone
    return hashes


def write_as_openai_does(model: Any, path: Path) -> None:
    """Write a TorchScript archive in half precision, with the three numbers that OpenAI's files hold next to the
    weights.

    Args:
        model: any module.
        path: the file to write.
    """
    import warnings

    import torch

    class Nested(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    root = Nested()
    extra = {"input_resolution": 32, "context_length": 77, "vocab_size": 49408}
    tensors: dict[str, torch.Tensor] = {
        **model.state_dict(),
        **{name: torch.tensor(value) for name, value in extra.items()},
    }
    for name, tensor in tensors.items():
        *parents, last = name.split(".")
        node: torch.nn.Module = root
        for parent in parents:
            if parent not in dict(node.named_children()):
                node.add_module(parent, Nested())
            node = node.get_submodule(parent)
        node.register_buffer(last, tensor.half() if tensor.is_floating_point() else tensor)
    script: Callable[..., Any] = torch.jit.script
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated, and OpenAI's files are what they are
        torch.jit.save(script(root), str(path))
