"""The COCO reader against counts by hand and real labels; the box filter; damaged and hostile files; memory."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from unit.data.native import box, write_json

from capnet.config import Ingest
from capnet.data.annotations.paths import DataFolder
from capnet.data.annotations.readers import coco
from capnet.data.annotations.rows import Annotations
from capnet.errors import DataError

Coco = coco.Settings

CATEGORIES = [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}, {"id": 90, "name": "toothbrush"}]
IMAGES = [
    {"id": 25, "file_name": "000000000025.jpg", "width": 640, "height": 426},
    {"id": 9, "file_name": "000000000009.jpg", "width": 480, "height": 640},
]


def read(root: Path, settings: Ingest) -> Annotations:
    return coco.read(DataFolder(root), settings)


def write(
    root: Path, images: list[dict], annotations: list[dict], categories: list[dict] | None = None, name: str = "train"
) -> Ingest:
    write_json(root / f"{name}.json", images=images, annotations=annotations, categories=categories or CATEGORIES)
    return Ingest(coco=Coco(train="train.json", test="test.json" if name == "test" else ""))


def test_rows_come_in_the_order_of_ids_and_classes_in_that_of_categories(tmp_path: Path) -> None:
    settings = write(tmp_path, IMAGES, [box(25, 90), box(25, 1), box(25, 90)])
    write(tmp_path, [{"id": 7, "file_name": "000000000007.jpg"}], [box(7, 18)], name="test")
    result = read(tmp_path, settings.model_copy(update={"coco": Coco(train="train.json", test="test.json")}))
    assert result.problems == []
    assert result.classes.names == ["person", "dog", "toothbrush"]
    assert result.rows["image_id"].tolist() == ["000000000009", "000000000025", "000000000007"]
    assert result.rows["path"].tolist() == [
        "train2017/000000000009.jpg",
        "train2017/000000000025.jpg",
        "val2017/000000000007.jpg",
    ]
    assert result.rows["labels"].tolist() == [[], [0, 2], [1]]
    assert result.rows["given_split"].tolist() == ["train", "train", "test"]
    assert result.rows["width"].iloc[:2].tolist() == [480, 640]


def test_a_file_of_which_annotators_looked_for_some_categories_only_is_named(tmp_path: Path) -> None:
    """LVIS: what is neither annotated nor in the list is unknown there, and absent here."""
    images = [{**IMAGES[0], "neg_category_ids": [18], "not_exhaustive_category_ids": []}, IMAGES[1]]
    result = read(tmp_path, write(tmp_path, images, [box(25, 1), box(9, 90)]))
    assert result.problems == []
    (warning,) = result.warnings
    assert warning.startswith("train.json: key 'neg_category_ids' of 1 image is not read.")
    assert not read(tmp_path, write(tmp_path, IMAGES, [box(25, 1)])).warnings


@pytest.mark.parametrize("named", ["train", "test"])
def test_one_file_alone_is_no_division(tmp_path: Path, named: str) -> None:
    write(tmp_path, IMAGES, [box(25, 90)])
    settings = Ingest(coco=Coco.model_validate({"train": "", "test": "", named: "train.json"}))
    assert read(tmp_path, settings).rows["given_split"].tolist() == [None, None]


FILTERED = [{"area": 0}, {"bbox": [1, 1, 0.5, 9]}, {"bbox": [1, 1, 9, 0.99]}, {"ignore": 1}]


@pytest.mark.parametrize("change", FILTERED)
def test_boxes_that_the_published_loader_skips(tmp_path: Path, change: dict) -> None:
    settings = write(tmp_path, IMAGES, [box(9, 1, **change), box(25, 1)])
    assert read(tmp_path, settings).rows["labels"].tolist() == [[], [0]]
    off = Ingest(coco=Coco(train="train.json", test="", box_filter=False))
    assert read(tmp_path, off).rows["labels"].tolist() == [[0], [0]]


EMPTY = [
    {"bbox": [0, 0, 0, 0], "area": 0},  # of tools that label whole images
    {"bbox": [], "area": 0},
    {"bbox": [0.1, 0.2, 0.5, 0.3], "area": 0.15},  # in parts of the image, as Azure writes them
]


@pytest.mark.parametrize("change", EMPTY)
def test_labels_are_not_lost_in_silence_where_boxes_are_not_in_pixels(tmp_path: Path, change: dict) -> None:
    settings = write(tmp_path, IMAGES, [box(9, 1, **change), box(9, 18, **change), box(25, 1), box(25, 1, **change)])
    (problem,) = read(tmp_path, settings).problems
    assert problem.what == "2 of 3 labels not used, because of boxes below 1 pixel or of area 0"
    assert "ingest.coco.box_filter: false" in problem.todo
    settings = write(tmp_path, IMAGES, [box(9, 1, **change), box(25, 1), box(25, 18)])
    result = read(tmp_path, settings)
    assert result.problems == []
    assert "train.json: 1 of 3 labels not used" in result.warnings[0]
    meant = [{"ignore": 1}, {"iscrowd": 1, **change}]
    for flag in meant:
        write(tmp_path, IMAGES, [box(9, 1, **flag), box(9, 18, **flag), box(25, 1)])
        result = read(tmp_path, Ingest(coco=Coco(train="train.json", test="", crowd=False)))
        assert (result.problems, result.warnings) == ([], [])


def test_a_box_without_an_area_counts(tmp_path: Path) -> None:
    settings = write(tmp_path, IMAGES, [box(9, 1, area=None), box(25, 18, bbox=None, area=None)])
    assert read(tmp_path, settings).rows["labels"].tolist() == [[0], [1]]


def test_crowds_count_unless_the_setting_says_no(tmp_path: Path) -> None:
    settings = write(tmp_path, IMAGES, [box(9, 1, iscrowd=1)])
    assert read(tmp_path, settings).rows["labels"].tolist() == [[0], []]
    assert read(tmp_path, Ingest(coco=Coco(train="train.json", test="", crowd=False))).rows["labels"].tolist() == [
        [],
        [],
    ]


def test_real_labels_come_back(shared: Path, tmp_path: Path) -> None:
    """COCO's val2017 written as instances JSON: 80 categories with COCO's gaps in their ids, 48 pictures without a
    box.
    """
    names = (shared / "data/labels/coco80_classes.txt").read_text().splitlines()
    ids = [number for number in range(1, 91) if number not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]
    with open(shared / "data/labels/coco2017_val.csv") as file:
        rows = {row["image"]: [int(c) for c in row["labels"].split()] for row in csv.DictReader(file)}
    images = [{"id": int(image), "file_name": f"{image}.jpg"} for image in rows]
    boxes = [box(int(image), ids[c]) for image, present in rows.items() for c in present]
    settings = write(
        tmp_path, images, boxes, [{"id": number, "name": name} for number, name in zip(ids, names, strict=True)]
    )
    result = read(tmp_path, settings)
    assert result.classes.names == names
    assert dict(zip(result.rows["image_id"], result.rows["labels"], strict=True)) == rows
    assert (result.rows["labels"].map(len) == 0).sum() == 48


def test_cameras_that_number_alike_have_ids_with_their_folder(tmp_path: Path) -> None:
    images = [{"id": n, "file_name": name} for n, name in enumerate(("7/IMG_1.JPG", "8/IMG_1.JPG", "./8//IMG_2.JPG"))]
    result = read(tmp_path, write(tmp_path, images, [box(0, 1)]))
    assert result.problems == []
    assert result.rows["image_id"].tolist() == ["7/IMG_1", "8/IMG_1", "8/IMG_2"]


def test_every_mistake_is_named(tmp_path: Path) -> None:
    images = [
        *IMAGES,
        {"id": 9, "file_name": "x.jpg"},
        {"id": "a", "file_name": "y.jpg"},
        {"id": None, "file_name": "z.jpg", "location": 3},
        {"id": 2, "file_name": "../../x.jpg"},
        {"id": 3, "file_name": "000000000025.png"},
    ]
    boxes = [box(77, 1), box(9, 5), box(9, 1, bbox=[1, 2]), box(9, 1, area="big"), {"image_id": [], "category_id": 1}]
    boxes.append({"image_id": 9, "segments_info": [{"category_id": 1}]})  # of a panoptic file
    result = read(tmp_path, write(tmp_path, images, boxes))
    text = "\n".join(f"{problem.what} | {problem.where}" for problem in result.problems)
    for part in (
        "image 9 appears twice",
        "needs a file_name, and a whole number as its id",
        "path 'train2017/../../x.jpg' leaves the data folder | train.json image 2",
        "image id '000000000025' appears twice",
        "names image 77, which does not exist",
        "names category 5, which does not exist",
    ):
        assert part in text
    assert text.count("is damaged") == 3
    assert len(result.problems) == 11
    todos = [problem.todo for problem in result.problems if problem.what == "annotation None has no category_id"]
    assert len(todos) == 1
    assert "panoptic have no labels" in todos[0]
    todos = [
        problem.todo for problem in result.problems if problem.what.endswith("names category 5, which does not exist")
    ]
    assert todos == ["correct a file of your own; of a benchmark, use the published file"]
    todo = "where images have a location, or texts as ids, set data.format: camera_traps"
    assert [problem.todo for problem in result.problems[1:3]] == [todo, todo]


def test_byte_order_marks_whole_floats_and_files_without_annotations(tmp_path: Path) -> None:
    settings = write(tmp_path, IMAGES, [box(9, 90) | {"image_id": 9.0, "category_id": 90.0}])
    path = tmp_path / "train.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read(tmp_path, settings).rows["labels"].tolist() == [[2], []]
    (problem,) = read(tmp_path, write(tmp_path, IMAGES, [])).problems
    assert "there are no annotations" in problem.what


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "not valid JSON"),
        (b'{"images": [', "not valid JSON"),
        (b'{"images": [], "annotations": [], "categories": []}', "there are no categories"),
        (b'{"categories": [{"id": 1, "name": "a"}], "images": [1]}', "which is no object"),
        (b'{"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}', "appears twice"),
        (b'{"categories": [{"id": "one", "name": "a"}]}', "needs a name, and a whole number as its id"),
        (b'{"categories": [{"id": 1, "name": "k\xe4se"}]}', "not valid JSON"),
        (None, "cannot read the annotations"),
    ],
)
def test_broken_files_are_one_clear_error(tmp_path: Path, content: bytes | None, what: str) -> None:
    if content is not None:
        (tmp_path / "train.json").write_bytes(content)
    with pytest.raises(DataError, match=what):
        read(tmp_path, Ingest(coco=Coco(train="train.json", test="")))


@pytest.mark.parametrize(
    ("category", "what", "todo"),
    [
        ({"id": 3, "name": "dog"}, "category 'dog' (id 3) appears twice", "give one of them another name, or"),
        ({"id": 1, "name": "cat"}, "category 'cat' (id 1) appears twice", "give each category an id of its own"),
        ({"id": "3", "name": "cat"}, "needs a name, and a whole number as its id", "correct the file"),
        ({"id": 3, "name": ""}, "needs a name, and a whole number as its id", "correct the file"),
    ],
)
def test_mistakes_in_categories_say_what_to_change(
    tmp_path: Path, category: dict[str, object], what: str, todo: str
) -> None:
    """The advice was to unpack COCO's annotations."""
    with pytest.raises(DataError) as caught:
        read(tmp_path, write(tmp_path, IMAGES, [box(9, 1)], [*CATEGORIES, category]))
    (problem,) = caught.value.problems
    assert what in problem.what
    assert problem.todo.startswith(todo)


def test_train_and_test_must_have_the_same_categories(tmp_path: Path) -> None:
    write(tmp_path, IMAGES, [])
    write(tmp_path, [{"id": 7, "file_name": "7.jpg"}], [], [{"id": 1, "name": "person"}], name="test")
    with pytest.raises(DataError, match="other categories"):
        read(tmp_path, Ingest(coco=Coco(train="train.json", test="test.json")))


@pytest.mark.slow
def test_a_large_file_is_streamed(tmp_path: Path) -> None:
    """40 MB of polygons take a few megabytes of memory; loaded at once they would take hundreds."""
    polygon = [[round(0.37 * number, 2) for number in range(400)]]
    with open(tmp_path / "train.json", "w") as file:
        file.write(
            '{"images": ['
            + ",".join(json.dumps({"id": n, "file_name": f"{n:012d}.jpg"}) for n in range(1000))
            + '], "annotations": ['
        )
        for number in range(16000):
            file.write(("," if number else "") + json.dumps(box(number % 1000, 1, segmentation=polygon)))
        file.write('], "categories": ' + json.dumps(CATEGORIES) + "}")
    assert (tmp_path / "train.json").stat().st_size > 35e6
    program = """
import sys
from pathlib import Path
from capnet.config import Ingest
import pandas, pyarrow, ijson
from capnet.data.annotations.paths import DataFolder
from capnet.data.annotations.readers.coco import Settings, read
peak = lambda: int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
before = peak()
rows = read(DataFolder(Path(sys.argv[1])), Ingest(coco=Settings(train="train.json", test=""))).rows
print(len(rows), peak() - before)
"""
    result = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    rows, kilobytes = map(int, result.stdout.split())
    assert rows == 1000
    assert kilobytes < 60_000
