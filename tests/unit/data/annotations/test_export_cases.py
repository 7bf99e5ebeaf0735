"""Rare cases in exports of labelling tools: the lines of docs/data-formats.md neither invent a label nor lose one."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from unit.data.annotations.test_exports import RECIPES, put, run

from capnet.data.images.decode import SUFFIXES


def labels_of(root: Path, tool: str) -> dict[str, str]:
    """The paths and labels that the lines for a tool write."""
    run(next(recipe for recipe in RECIPES if recipe.startswith(f"# {tool}")), root)
    with (root / "labels.csv").open(newline="") as file:
        return {row["path"]: row["labels"] for row in csv.DictReader(file)}


def of_labelbox(names: list[str], boxes: list[str], skipped: bool) -> dict:
    answers = [{"name": "What is there?", "checklist_answers": [{"name": name} for name in names]}] if names else []
    content = {"objects": [{"name": name, "bounding_box": {}} for name in boxes], "classifications": answers}
    return {"performance_details": {"seconds_to_create": 5, "skipped": skipped}, "annotations": content}


def test_what_was_skipped_in_labelbox_is_not_an_image_without_labels(tmp_path: Path) -> None:
    images = {
        "skipped.jpg": [of_labelbox([], [], skipped=True)],
        "both.jpg": [of_labelbox(["fox"], [], skipped=False), of_labelbox([], [], skipped=True)],
        "none.jpg": [of_labelbox([], [], skipped=False)],
        "box.jpg": [of_labelbox(["snow"], ["bear"], skipped=False)],
    }
    rows = [{"data_row": {"global_key": name}, "projects": {"p": {"labels": item}}} for name, item in images.items()]
    put(tmp_path, "export.ndjson", "\n".join(map(json.dumps, rows)))
    assert labels_of(tmp_path, "Labelbox") == {
        "images/both.jpg": "fox",
        "images/none.jpg": "",
        "images/box.jpg": "bear|snow",
    }


def test_checkboxes_and_labels_of_files_in_vgg_via(tmp_path: Path) -> None:
    header = "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes"
    cells: list[tuple[str, dict, dict]] = [
        ("boxes.jpg", {}, {"class": {"fox": True, "bear": True}}),
        ("boxes.jpg", {}, {"class": "lynx"}),
        ("file.jpg", {"class": {"fox": True}}, {}),
        ("radio.jpg", {"class": "bear", "caption": "x"}, {}),
        ("empty.jpg", {"class": {}}, {"class": ""}),
    ]
    with (tmp_path / "via.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header.split(","))
        writer.writerows([name, 9, json.dumps(whole), 1, 0, "{}", json.dumps(region)] for name, whole, region in cells)
    assert labels_of(tmp_path, "VGG VIA") == {
        "images/boxes.jpg": "bear|fox|lynx",
        "images/empty.jpg": "",
        "images/file.jpg": "fox",
        "images/radio.jpg": "bear",
    }


def test_boxes_of_yolo_without_an_image_are_not_passed_over(tmp_path: Path) -> None:
    put(tmp_path, "data.yaml", "names: [fox, bear]\n")
    put(tmp_path, "images/a.jpg", "")
    put(tmp_path, "images/0a1b-bär.jpg", "")
    put(tmp_path, "labels/a.txt", "1 0.5 0.5 0.1 0.1\n")
    put(tmp_path, "labels/classes.txt", "fox\nbear\n")
    assert labels_of(tmp_path, "YOLO") == {"images/0a1b-bär.jpg": "", "images/a.jpg": "bear"}
    put(tmp_path, "labels/0a1b-b%C3%A4r.txt", "0 0.5 0.5 0.1 0.1\n")
    with pytest.raises(AssertionError, match=r"1 text files have no image of their name: .*0a1b-b%C3%A4r"):
        labels_of(tmp_path, "YOLO")


def test_captions_of_datumaro_are_no_labels(tmp_path: Path) -> None:
    annotations = [{"type": "caption", "caption": "hello"}, {"type": "label", "label_id": 0}]
    items = [{"id": "a", "annotations": annotations, "image": {"path": "a.jpg"}}]
    content = {"categories": {"label": {"labels": [{"name": "fox", "parent": ""}]}}, "items": items}
    put(tmp_path, "annotations/default.json", json.dumps(content))
    assert labels_of(tmp_path, "Datumaro") == {"images/default/a.jpg": "fox"}


def test_voc_in_the_folder_that_most_tools_write(tmp_path: Path) -> None:
    put(tmp_path, "images/a.png", "")
    put(tmp_path, "Annotations/a.xml", "<annotation><object><name>fox</name></object></annotation>")
    assert labels_of(tmp_path, "Pascal VOC") == {"images/a.png": "fox"}


def test_roboflow_without_a_folder_for_validation(tmp_path: Path) -> None:
    for split, name in (("train", "a"), ("test", "b")):
        put(tmp_path, f"{split}/_classes.csv", f"filename, fox, bear\n{name}.jpg, 1, 0\n")
    run(next(recipe for recipe in RECIPES if recipe.startswith("# Roboflow")), tmp_path)
    assert (tmp_path / "labels.csv").read_text().splitlines() == [
        "path,split,fox,bear",
        "train/a.jpg,train,1,0",
        "test/b.jpg,test,1,0",
    ]


def test_a_name_with_the_separator_does_not_become_two_labels(tmp_path: Path) -> None:
    put(tmp_path, "metadata.jsonl", json.dumps({"file_name": "a.jpg", "labels": ["fox", "deer|doe"]}))
    with pytest.raises(AssertionError, match=r"ingest\.separator: {'deer\|doe'}"):
        labels_of(tmp_path, "Hugging Face")


def test_one_name_is_no_list_of_letters(tmp_path: Path) -> None:
    put(tmp_path, "metadata.jsonl", json.dumps({"file_name": "a.jpg", "labels": "fox"}))
    assert labels_of(tmp_path, "Hugging Face") == {"a.jpg": "fox"}


@pytest.mark.parametrize("ending", [*SUFFIXES, ".JPEG", ".TIFF", ".jfif", ".heic", ".jp2"])
def test_images_of_every_format_have_a_row(tmp_path: Path, ending: str) -> None:
    """One without boxes has no text file that would be missed. Of a format that is not read, ingest says so."""
    put(tmp_path, "data.yaml", "names: [fox, bear]\n")
    put(tmp_path, f"images/a{ending}", "")
    for name in ("Thumbs.db", ".hidden.jpg", "part/README"):
        put(tmp_path, f"images/{name}", "")
    assert labels_of(tmp_path, "YOLO") == {f"images/a{ending}": ""}
    put(tmp_path, f"images/fox/b{ending}", "b")
    put(tmp_path, "images/fox/.DS_Store", "")
    put(tmp_path, "images/fox/notes.txt", "")
    assert labels_of(tmp_path, "A folder for each class") == {f"images/fox/b{ending}": "fox"}
