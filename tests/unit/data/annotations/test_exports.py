"""The lines of docs/data-formats.md that make labels.csv, on exports in the shape that each tool writes."""

from __future__ import annotations

import io
import json
import os
import re
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from unit.data.annotations.camera_trap_exports import CAMERA_TRAPS, put
from unit.data.annotations.csv_tables import accept

DOCUMENT = Path(__file__).parents[4] / "docs" / "data-formats.md"
LABELS = {"001": ["cat", "traffic light"], "002": ["dog"], "003": []}
CLASSES = ["cat", "dog", "traffic light"]
UNKNOWN = {"001": ["dog"], "002": ["traffic light"], "003": ["cat", "traffic light"]}
SPLITS = {"001": "train", "002": "valid", "003": "test"}
BLOCKS = re.findall(r"^```python\n(.*?)^```", DOCUMENT.read_text(), re.M | re.S)
LAST = next(block for block in BLOCKS if "for path, labels in rows]  # one name, or several" in block)
LAST_OF_CAMERA_TRAPS = next(block for block in BLOCKS if block.startswith("species = "))
RECIPES = [block for block in BLOCKS if block not in (LAST, LAST_OF_CAMERA_TRAPS)]
Export = Callable[[Path], None]


def fiftyone(root: Path) -> None:
    targets = {name: [CLASSES.index(label) for label in labels] for name, labels in LABELS.items()}
    put(root, "labels.json", json.dumps({"classes": CLASSES, "labels": {**targets, "d": None}}))
    for name in (*LABELS, "d"):
        put(root, f"data/{name}.jpg", "")


def label_studio(root: Path) -> None:
    choices = {"001": {"choice": {"choices": LABELS["001"]}}, "002": {"choice": "dog"}, "003": {}}
    tasks = [{"image": f"/data/upload/1/{name}.jpg", "annotation_id": 1, **choices[name]} for name in LABELS]
    unlabelled = {"image": "/data/upload/1/d.jpg", "annotator": {}, "annotation_id": None}
    put(root, "export.json", json.dumps([*tasks, unlabelled]))


def labelbox(root: Path) -> None:
    lines = []
    for name, labels in LABELS.items():
        answers = [{"name": label, "value": label.replace(" ", "_")} for label in labels]
        asked: list[dict] = [{"name": "What is there?", "checklist_answers": answers}] if len(labels) > 1 else []
        asked += [{"name": "Which?", "radio_answer": answer} for answer in answers[:1]]
        projects = {"p": {"name": "P", "labels": [{"annotations": {"objects": [], "classifications": asked}}]}}
        lines.append({"data_row": {"id": "x", "global_key": f"{name}.jpg"}, "projects": projects})
    lines.append({"data_row": {"id": "y", "global_key": "d.jpg"}, "projects": {"p": {"name": "P", "labels": []}}})
    put(root, "export.ndjson", "\n".join(map(json.dumps, lines)) + "\n")


def cvat(root: Path) -> None:
    images = ""
    for number, (name, labels) in enumerate(LABELS.items()):
        tags = "".join(f'<tag label="{label}" source="manual"></tag>' for label in labels)
        images += f'<image id="{number}" name="{name}.jpg" width="9" height="9">{tags}</image>'
    meta = "<meta><task><labels><label><name>cat</name></label></labels></task></meta>"
    put(root, "annotations.xml", f"<annotations><version>1.1</version>{meta}{images}</annotations>")


def datumaro(root: Path) -> None:
    categories = {"label": {"labels": [{"name": name, "parent": ""} for name in CLASSES], "attributes": []}}
    for (name, labels), subset in zip(LABELS.items(), ("Train", "Validation", "Test"), strict=True):
        annotations = [{"id": 0, "type": "label", "label_id": CLASSES.index(label)} for label in labels]
        items = [{"id": name, "annotations": annotations, "image": {"path": f"{name}.jpg", "size": [9, 9]}}]
        put(root, f"annotations/{subset}.json", json.dumps({"info": {}, "categories": categories, "items": items}))


def vgg_via(root: Path) -> None:
    header = "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes"
    lines = [header]
    for name, labels in LABELS.items():
        for number, label in enumerate(labels * 2 or [""]):
            attributes = json.dumps({"class": label} if label else {}).replace('"', '""')
            lines.append(f'{name}.jpg,9,"{{}}",{len(labels) * 2},{number},"{{}}","{attributes}"')
    put(root, "via.csv", "\n".join(lines) + "\n")


def pascal_voc(root: Path) -> None:
    for (name, labels), ending in zip(LABELS.items(), ("JPG", "png", "jpg"), strict=True):
        put(root, f"images/{name}.{ending}", "")
        objects = "".join(f"<object><name>{label}</name></object>" for label in [*labels, *labels])
        put(root, f"annotations/{name}.xml", f"<annotation><folder>x</folder>{objects}</annotation>")


def yolo(root: Path) -> None:
    put(root, "data.yaml", f"train: ../train/images\nnc: 3\nnames: {CLASSES}\n")
    for name, labels in LABELS.items():
        put(root, f"{SPLITS[name]}/images/{name}.jpg", "")
        lines = [f"{CLASSES.index(label)} 0.5 0.5 0.1 0.1\n" for label in labels]
        if lines:
            put(root, f"{SPLITS[name]}/labels/{name}.txt", "".join(lines))


def coco(root: Path) -> None:
    categories = [{"id": 5 * number, "name": name, "supercategory": "none"} for number, name in enumerate(CLASSES)]
    for name, labels in LABELS.items():
        boxes = [{"id": 1, "image_id": 7, "category_id": 5 * CLASSES.index(label)} for label in labels]
        content = {"images": [{"id": 7, "file_name": f"{name}.jpg"}], "annotations": boxes, "categories": categories}
        put(root, f"{SPLITS[name]}/_annotations.coco.json", json.dumps(content))


def hugging_face(root: Path) -> None:
    lines = [json.dumps({"file_name": f"train/{name}.jpg", "labels": labels}) for name, labels in LABELS.items()]
    put(root, "metadata.jsonl", "\n".join(lines))


def webdataset(root: Path) -> None:
    (root / "shards").mkdir()
    with tarfile.open(root / "shards" / "000.tar", "w") as tar:
        for name, labels in LABELS.items():
            for ending, content in (("jpg", b""), ("json", json.dumps({"labels": labels}).encode())):
                member = tarfile.TarInfo(f"{name}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def roboflow(root: Path) -> None:
    for name, labels in LABELS.items():
        cells = ["1" if label in labels else "0" for label in CLASSES]
        rows = [", ".join(["filename", *CLASSES]), ", ".join([f"{name}.jpg", *cells])]
        put(root, f"{SPLITS[name]}/_classes.csv", "\n".join(rows))


def kaggle(root: Path) -> None:
    rows = [",".join([name, *(str(int(label in labels)) for label in CLASSES)]) for name, labels in LABELS.items()]
    put(root, "train.csv", "\n".join([f"image_id,{','.join(CLASSES)}", *rows]))


def open_images(root: Path) -> None:
    codes = {label: f"/m/0{number}" for number, label in enumerate(CLASSES)}
    put(root, "class-descriptions.csv", "".join(f"{code},{label}\n" for label, code in codes.items()))
    rows = [(name, label, 1) for name, labels in LABELS.items() for label in labels] + [
        ("002", "cat", 0),
        ("003", "dog", 0),
    ]
    lines = [f"{name},verification,{codes[label]},{confidence}\n" for name, label, confidence in rows]
    put(root, "annotations-human-imagelabels.csv", "ImageID,Source,LabelName,Confidence\n" + "".join(lines))


def chestxray14(root: Path) -> None:
    rows = [
        f"{name}.jpg,{'|'.join(labels) or 'No Finding'},0,17,58,M,PA,2,2,0.1,0.1," for name, labels in LABELS.items()
    ]
    header = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position"
    size = "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
    put(root, "Data_Entry_2017.csv", "\n".join([f"{header},{size}", *rows]))


def vindr(root: Path) -> None:
    rows = ["image_id,rad_id," + ",".join([*CLASSES, "No finding"])]
    for name, labels in LABELS.items():
        cells = [int(label in labels) for label in CLASSES]
        third = [1 if label in UNKNOWN.get(name, []) else cell for label, cell in zip(CLASSES, cells, strict=True)]
        for rater, answers in (("R8", cells), ("R9", cells), ("R10", third)):
            rows.append(",".join(map(str, [name, rater, *answers, int(not any(answers))])))
    put(root, "image_labels_train.csv", "\n".join(rows))


def labelme(root: Path) -> None:
    for name, labels in LABELS.items():
        shapes = [{"label": label, "points": [[1, 2], [3, 4]], "shape_type": "rectangle"} for label in labels[:1]]
        flags = {label: label in labels[1:] for label in CLASSES}
        export = {"version": "5.4.1", "flags": flags, "shapes": shapes, "imagePath": f"..\\images\\{name}.jpg"}
        put(root, f"images/{name}.json", json.dumps(export))


def folders(root: Path) -> None:
    for name, labels in LABELS.items():
        for label in labels or ["none"]:
            put(root, f"images/{label}/{name}.jpg", name)


EXPORTS = {
    "FiftyOne": fiftyone,
    "LabelMe": labelme,
    "A folder for each class": folders,
    "Label Studio": label_studio,
    "Labelbox": labelbox,
    "CVAT": cvat,
    "Datumaro": datumaro,
    "VGG VIA": vgg_via,
    "Pascal VOC": pascal_voc,
    "YOLO": yolo,
    "COCO": coco,
    "Hugging Face": hugging_face,
    "WebDataset": webdataset,
    "Roboflow": roboflow,
    "Kaggle": kaggle,
    "Open Images": open_images,
    "ChestX-ray14": chestxray14,
    "VinDr-CXR": vindr,
    **CAMERA_TRAPS,
}


def run(recipe: str, root: Path) -> None:
    """Run the lines of the document in the data folder, with those that end all recipes of ``rows`` or of ``seen``."""
    last = LAST_OF_CAMERA_TRAPS if "seen[" in recipe else LAST
    earlier = os.getcwd()
    os.chdir(root)
    try:
        exec(recipe + ("" if ".to_csv(" in recipe else last), {})
    finally:
        os.chdir(earlier)


@pytest.mark.parametrize("name", EXPORTS)
def test_the_lines_of_the_document_keep_every_label(tmp_path: Path, name: str) -> None:
    EXPORTS[name](tmp_path)
    run(next(recipe for recipe in RECIPES if recipe.startswith(f"# {name}")), tmp_path)
    table = accept(tmp_path)
    rows = {Path(row["path"]).stem: row for row in table.rows.to_dict("records")}
    names = table.classes.names
    assert names == CLASSES
    assert {image: sorted(names[c] for c in row["labels"]) for image, row in rows.items()} == LABELS
    unknown = UNKNOWN if name in ("Open Images", "VinDr-CXR") else {}
    unknown = {"002": ["cat", "traffic light"]} if name in CAMERA_TRAPS else unknown
    assert {image: [names[c] for c in row["unknown"]] for image, row in rows.items() if row["unknown"]} == unknown
    if name in ("YOLO", "COCO", "Datumaro", "Roboflow"):
        assert {image: row["given_split"] for image, row in rows.items()} == {
            "001": "train",
            "002": "val",
            "003": "test",
        }
    if name == "Pascal VOC":
        assert [row["path"] for row in rows.values()] == ["images/001.JPG", "images/002.png", "images/003.jpg"]
    if name == "Timelapse":
        assert rows["001"]["path"] == "images/Site 1/2024/001.jpg"
    if name == "Camtrap DP":
        assert {row["path"] for row in rows.values()} == {"media/001.jpg", "media/002.jpg", "images/003.jpg"}
    if name in CAMERA_TRAPS:
        assert {row["group"] for row in rows.values()} == {"Site 1"}
    if name == "ChestX-ray14":
        assert {row["group"] for row in rows.values()} == {"17"}
        assert [row["image_id"] for row in rows.values()] == [f"{name}.jpg" for name in LABELS]


def test_fiftyone_without_classes_writes_names(tmp_path: Path) -> None:
    put(tmp_path, "labels.json", json.dumps({"classes": None, "labels": {"001": LABELS["001"], "002": "dog"}}))
    for name in LABELS:
        put(tmp_path, f"data/{name}.jpg", "")
    run(next(recipe for recipe in RECIPES if recipe.startswith("# FiftyOne")), tmp_path)
    assert (tmp_path / "labels.csv").read_text().splitlines()[1:] == [
        "data/001.jpg,cat|traffic light,",
        "data/002.jpg,dog,",
    ]


def test_boxes_and_encoded_names_of_label_studio(tmp_path: Path) -> None:
    boxes = [{"x": 1, "y": 2, "rectanglelabels": [label], "original_width": 9} for label in LABELS["001"]]
    uploaded = {"image": "/data/upload/1/0a1b2c3d-b%C3%A4r.jpg", "annotation_id": 1, "label": boxes}
    local = {"image": "/data/local-files/?d=photos/a%20b.jpg", "annotation_id": 2}
    put(tmp_path, "export.json", json.dumps([uploaded, local]))
    recipe = next(recipe for recipe in RECIPES if recipe.startswith("# Label Studio"))
    line = 'tag, kind = "choice", "choices"  # for boxes: "label", "rectanglelabels"'
    assert line in recipe
    run(recipe.replace(line, 'tag, kind = "label", "rectanglelabels"'), tmp_path)
    assert (tmp_path / "labels.csv").read_text().splitlines()[1:] == [
        "images/0a1b2c3d-bär.jpg,cat|traffic light,",
        "images/a b.jpg,,",
    ]


def test_a_project_of_cvat_has_a_folder_for_each_subset(tmp_path: Path) -> None:
    image = '<image id="0" name="a/1.jpg" subset="Test" task_id="4"><tag label="cat" source="manual"></tag></image>'
    put(tmp_path, "annotations.xml", f"<annotations>{image}</annotations>")
    run(next(recipe for recipe in RECIPES if recipe.startswith("# CVAT")), tmp_path)
    assert (tmp_path / "labels.csv").read_text().splitlines()[1:] == ["images/Test/a/1.jpg,cat,test"]


def test_every_export_of_the_document_is_tried() -> None:
    named = [recipe for recipe in RECIPES if recipe.startswith("# ")]
    assert sorted(named) == sorted(recipe for recipe in named if recipe[2:].startswith(tuple(EXPORTS)))
    assert len(named) == len(EXPORTS)


def test_the_clean_lists_of_nus_wide(tmp_path: Path) -> None:
    rows = ["a.jpg,\"['cat', 'dog']\",train", "b.jpg,[],val"]
    put(tmp_path, "nus_wid_data.csv", "\n".join(["filepath,label,split_name", *rows]))
    run(next(recipe for recipe in RECIPES if "nus_wid_data.csv" in recipe), tmp_path)
    assert (tmp_path / "nus_train.csv").read_text().splitlines() == ["image,labels", "a.jpg,cat dog"]
    assert (tmp_path / "nus_test.csv").read_text().splitlines() == ["image,labels", "b.jpg,"]
