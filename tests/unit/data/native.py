"""Small data sets in published layouts, written from plain labels."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from capnet.data.annotations.readers import nus_wide, voc


def jpeg(width: int = 32, height: int = 24, colour: tuple[int, int, int] = (90, 120, 30)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(buffer, format="JPEG")
    return buffer.getvalue()


def voc_object(name: str, difficult: int = 0) -> str:
    parts = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>" if name == "person" else ""
    box = "<bndbox><xmin>1</xmin></bndbox>"
    return f"<object><name>{name}</name><pose>Unspecified</pose><difficult>{difficult}</difficult>{box}{parts}</object>"


def voc_xml(image: str, objects: Sequence[str]) -> str:
    size = "<size><width>32</width><height>24</height></size>"
    return f"<annotation><filename>{image}.jpg</filename>{size}{''.join(objects)}</annotation>"


def write_voc(root: Path, year: str, image_set: str, labels: Mapping[str, Sequence[int]], picture: bytes) -> None:
    """A year folder; each class of a picture is there twice, so that objects and labels differ."""
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / year / folder).mkdir(parents=True, exist_ok=True)
    (root / year / "ImageSets/Main" / f"{image_set}.txt").write_text("".join(f"{image}\n" for image in labels))
    for image, present in labels.items():
        objects = [voc_object(voc.CLASSES[c]) for c in present for _ in range(2)]
        (root / year / "Annotations" / f"{image}.xml").write_text(voc_xml(image, objects))
        (root / year / "JPEGImages" / f"{image}.jpg").write_bytes(picture)


def write_json(path: Path, **content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def box(image: int, category: int, **more: Any) -> dict[str, Any]:
    return {
        "image_id": image,
        "category_id": category,
        "bbox": [1.5, 2, 10, 12.25],
        "area": 60.5,
        "iscrowd": 0,
        "segmentation": [[1, 2.5, 3]],
    } | more


def write_nus_wide(root: Path, split: str, rows: Mapping[str, Sequence[int]]) -> None:
    """The official layout: image list with backslashes, one file a concept."""
    (root / "ImageList").mkdir(parents=True, exist_ok=True)
    (root / "Groundtruth/TrainTestLabels").mkdir(parents=True, exist_ok=True)
    (root / "ImageList" / f"{split}Imagelist.txt").write_text("".join(name.replace("/", "\\") + "\n" for name in rows))
    for c, concept in enumerate(nus_wide.CLASSES):
        marks = "".join(f"{int(c in present)}\n" for present in rows.values())
        (root / "Groundtruth/TrainTestLabels" / f"Labels_{concept}_{split}.txt").write_text(marks)
