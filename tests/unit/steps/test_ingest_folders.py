"""The ingest stage where images are missing because of a folder: one mistake, and the setting that mends it."""

from __future__ import annotations

from pathlib import Path

import pytest
from unit.data.native import box, write_json

from tests.unit.steps import ingested
from tests.unit.steps.ingested import picture, refused

data = ingested.data


def write_annotations(path: Path, names: list[str]) -> None:
    """A file of COCO, or of camera traps, in which every image has a fox."""
    images = [{"id": number, "file_name": name} for number, name in enumerate(names)]
    boxes = [box(number, 1) for number in range(len(names))]
    write_json(path, images=images, annotations=boxes, categories=[{"id": 1, "name": "fox"}])


def test_images_of_a_folder_that_is_not_there_are_one_mistake(data: Path, tmp_path: Path) -> None:
    with (data / "labels.csv").open("a") as table:
        table.write("".join(f"camera 1/{number}.jpg,cat,g\n" for number in range(60)) + "images/z.jpg,cat,g\n")
    folder, image = refused(data, tmp_path / "manifest")
    assert "60 images in 'camera 1' are missing" in folder
    assert "where: labels.csv row 5" in folder
    assert "the data folder has no folder 'camera 1'" in folder
    assert "61 of 64 are bad" in folder
    assert "image 'images/z.jpg': missing" in image


@pytest.mark.parametrize("folder", ["camera {}/", ""])
@pytest.mark.parametrize(("file", "kind"), [("annotations.json", "camera_traps"), ("mine.json", "coco")])
def test_images_below_a_folder_that_a_setting_names_are_one_mistake(
    data: Path, tmp_path: Path, file: str, kind: str, folder: str
) -> None:
    names = [f"{folder.format(number)}{number}.png" for number in range(4)]
    for name in names:
        picture(data / "photos" / name)
    write_annotations(data / file, [*names, f"{folder.format(0)}gone.png"])
    section = {"blank": []} if kind == "camera_traps" else {"train": file, "train_images": "", "test": ""}
    moved, gone = refused(data, tmp_path / "manifest", kind=kind, **{kind: section})
    assert "4 images missing, but in the folder 'photos'" in moved
    assert f"set ingest.{kind}." in moved
    assert "images, so that paths begin with photos/ (5 of 5 are bad" in moved
    assert f"image '{folder.format(0)}gone.png': missing" in gone


@pytest.mark.parametrize(
    ("section", "names", "todo"),
    [
        ({"train_images": "images"}, "images/{}.png", 'set ingest.coco.train_images: "" ('),
        ({"train_images": "./images/"}, "images/{}.png", 'set ingest.coco.train_images: "" ('),
        ({"train_images": "photos/images"}, "images/{}.png", 'set ingest.coco.train_images: "photos" ('),
        ({"train_images": "train"}, "{}.png", 'set ingest.coco.train_images: "" ('),
        (
            {"train_images": "images", "test_images": "images"},
            "images/{}.png",
            'set ingest.coco.train_images: "" and ingest.coco.test_images: "" (',
        ),
        ({"images": "images"}, "images/{}.png", 'set ingest.camera_traps.images: "" ('),
    ],
)
def test_file_names_that_begin_with_the_folder_of_the_setting_are_one_mistake(
    data: Path, tmp_path: Path, section: dict[str, str], names: str, todo: str
) -> None:
    """The advice was to write the names as the annotations have them."""
    folder = "photos/" if "photos" in todo else ""
    for number in range(4):
        picture(data / folder / names.format(number))
    write_annotations(data / "mine.json", [names.format(number) for number in range(5)])
    kind = "coco" if "train_images" in section else "camera_traps"
    section |= {"train": "mine.json", "test": ""} if kind == "coco" else {"file": "mine.json", "blank": []}
    moved, gone = refused(data, tmp_path / "manifest", kind=kind, **{kind: section})
    folder = str(Path(section.get("images") or section["train_images"]))
    assert moved.startswith(f"4 images missing, but there without the folder {folder!r} of ingest.{kind}.")
    assert f"to do: {todo}5 of 5 are bad" in moved
    assert gone.startswith(f"image '{folder}/{names.format(4)}': missing")


def test_a_stray_image_does_not_make_the_folder_of_all_others_wrong(data: Path, tmp_path: Path) -> None:
    """The advice was to leave the folder out: then four of five were missing."""
    for name in (*(f"images/{number}.png" for number in range(4)), "4.png"):
        picture(data / name)
    write_annotations(data / "mine.json", [f"{number}.png" for number in range(5)])
    section = {"train": "mine.json", "train_images": "images", "test": ""}
    (missing,) = refused(data, tmp_path / "manifest", kind="coco", coco=section)
    assert missing.startswith("image 'images/4.png': missing")
    assert "train_images" not in missing
