"""The camera-trap reader: sites stay together, blanks are kept, what nobody looked at is not taken for blank."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faults.bounded import bounded
from unit.data.native import jpeg, write_json

from capnet.config import Data, Ingest, Params, Split
from capnet.contracts import read_manifest, read_split
from capnet.data.annotations.paths import DataFolder
from capnet.data.annotations.readers import camera_traps
from capnet.data.annotations.rows import Annotations
from capnet.errors import DataError
from capnet.stages import run

CATEGORIES = [
    {"id": 0, "name": "empty"},
    {"id": 3, "name": "roe deer"},
    {"id": 1, "name": "red fox"},
    {"id": 9, "name": "unidentified"},
]

CameraTraps = camera_traps.Settings


def read(root: Path, settings: Ingest) -> Annotations:
    return camera_traps.read(DataFolder(root), settings)


def image(number: int, **more: Any) -> dict[str, Any]:
    return {
        "id": f"id-{number}",
        "file_name": f"site/{number}.jpg",
        "location": 7,
        "seq_id": f"s{number // 3}",
        "frame_num": number % 3,
    } | more


def seen(number: int, category: int) -> dict[str, Any]:
    return {"id": f"{number}/{category}", "image_id": f"id-{number}", "category_id": category}


def write(root: Path, images: list[dict], annotations: list[dict], categories: list[dict] | None = None) -> Path:
    write_json(
        root / "annotations.json",
        info={"version": "1"},
        images=images,
        annotations=annotations,
        categories=categories or CATEGORIES,
    )
    return root


def settings(**more: Any) -> Ingest:
    return Ingest(camera_traps=CameraTraps.model_validate({"unsure": ["unidentified"]} | more))


def test_location_is_the_group_and_sequences_are_kept(tmp_path: Path) -> None:
    images = [image(0), image(1, location=None), image(2, location="", seq_id=None), image(3, width=64, height=48)]
    result = read(
        write(
            tmp_path,
            images,
            [seen(0, 1), seen(0, 3), seen(0, 3), seen(1, 0), seen(2, 0), seen(2, 1), seen(3, 9), seen(3, 3)],
        ),
        settings(),
    )
    assert result.problems == []
    assert result.classes.names == ["red fox", "roe deer"]
    rows = result.rows
    assert rows["image_id"].tolist() == ["id-0", "id-1", "id-2", "id-3"]
    assert rows["labels"].tolist() == [[0, 1], [], [0], [1]]
    assert rows["unknown"].tolist() == [[], [], [], [0]]
    assert [None if value != value else value for value in rows["group"]] == ["7", "sequence s0", None, "7"]
    assert [None if value != value else value for value in rows["sequence"]] == ["s0", "s0", None, "s1"]
    assert rows["width"].isna().tolist() == [True, True, True, False]


def test_what_nobody_looked_at_and_corrupt_files_are_left_out_and_counted(tmp_path: Path) -> None:
    images = [image(0), image(1), image(2, corrupt=True), image(3)]
    result = read(write(tmp_path, images, [seen(0, 1), seen(2, 1), seen(3, 0)]), settings())
    assert result.problems == []
    assert result.rows["image_id"].tolist() == ["id-0", "id-3"]
    assert {reason: [image.image_id for image in images] for reason, images in result.left_out.items()} == {
        "no annotation, so nobody looked": ["id-1"],
        "marked corrupt in the annotations": ["id-2"],
    }


def test_an_image_that_is_blank_and_labelled_is_named(tmp_path: Path) -> None:
    both = [seen(0, 0), seen(0, 1), seen(1, 0), seen(2, 1)]
    result = read(write(tmp_path, [image(number) for number in range(3)], both), settings())
    (warning,) = result.warnings
    assert warning.startswith("1 image annotated as blank and as something else")
    assert result.rows["path"][0] in warning


def test_images_whose_site_is_not_said_are_named(tmp_path: Path) -> None:
    images = [image(0), image(1, location=None), image(2, location=""), image(3, location=None)]
    root = write(tmp_path, images, [seen(number, 1) for number in range(3)])
    (warning,) = read(root, settings()).warnings
    assert warning.startswith("2 of 3 images without a location, 'site/1.jpg' first")
    assert not read(write(tmp_path, images[:1], [seen(0, 1)]), settings()).warnings


def test_a_split_that_images_name_is_said_to_be_unread(tmp_path: Path) -> None:
    def warnings(*splits: object) -> list[str]:
        images = [image(number, split=split) for number, split in enumerate(splits)]
        return list(
            read(write(tmp_path, images, [seen(number, 1) for number in range(len(images))]), settings()).warnings
        )

    (warning,) = warnings("Train", None, "test")
    assert warning.startswith("key 'split' of images is not read, so other test images are drawn")
    assert not read(tmp_path, settings().model_copy(update={"train_list": "train.txt"})).warnings
    assert warnings("train", "train", "") == warnings(None, 3, ["test"]) == []


def test_the_maximum_over_a_sequence_is_a_setting(tmp_path: Path) -> None:
    images = [image(0), image(1), image(2), image(3)]
    root = write(tmp_path, images, [seen(0, 0), seen(1, 1), seen(2, 3), seen(3, 0)])
    assert read(root, settings()).rows["labels"].tolist() == [[], [0], [1], []]
    assert read(root, settings(sequence_maximum=True)).rows["labels"].tolist() == [[0, 1], [0, 1], [0, 1], []]


def test_sequences_that_every_location_numbers_anew_are_told_apart(tmp_path: Path) -> None:
    images = [
        image(0, location="A", seq_id=1),
        image(1, location="A", seq_id=1),
        image(2, location="B", seq_id=1),
        image(3, location=None, seq_id=2),
    ]
    root = write(tmp_path, images, [seen(0, 1), seen(1, 0), seen(2, 3), seen(3, 0)])
    rows = read(root, settings(sequence_maximum=True)).rows
    assert rows["labels"].tolist() == [[0], [0], [1], []]
    assert rows["sequence"].tolist() == ["A / 1", "A / 1", "B / 1", "2"]


def test_the_usual_blank_category_is_known_however_it_is_spelt_and_a_class_is_needed(tmp_path: Path) -> None:
    root = write(
        tmp_path, [image(0), image(1)], [seen(0, 0), seen(1, 1)], [{"id": 0, "name": "Empty"}, {"id": 1, "name": "fox"}]
    )
    result = read(root, Ingest())
    assert (result.classes.names, result.rows["labels"].tolist()) == (["fox"], [[], [0]])
    both = [{"id": number, "name": name} for number, name in enumerate(["empty", "fox", "Empty"])]
    result = read(write(tmp_path, [image(0), image(1), image(2)], [seen(0, 0), seen(1, 1), seen(2, 2)], both), Ingest())
    assert (result.classes.names, result.rows["labels"].tolist()) == (["fox"], [[], [0], []])
    with pytest.raises(DataError, match="so there are no classes"):
        read(write(tmp_path, [image(0)], [seen(0, 0)], CATEGORIES[:1]), Ingest())


def test_another_word_for_blank_is_not_taken_for_a_class_without_a_word(tmp_path: Path) -> None:
    categories = [{"id": 0, "name": "Blank"}, {"id": 1, "name": "red fox"}]
    root = write(tmp_path, [image(0), image(1)], [seen(0, 0), seen(1, 1)], categories)
    (warning,) = read(root, Ingest()).warnings
    assert warning.startswith("category 'Blank' counts as a class")
    assert read(root, settings(blank=["Blank"], unsure=[])).warnings == []


def test_fifty_sites_with_seventy_percent_blanks_share_no_site_between_sides(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number in range(2000):
        site = int(rng.integers(50))
        images.append(
            image(
                number,
                id=f"id-{number}",
                file_name=f"{site}/{number}.jpg",
                location=f"site {site}",
                seq_id=f"s{number}",
                width=64,
                height=48,
            )
        )
        annotations.append(seen(number, 0 if rng.random() < 0.7 else int(rng.choice([1, 3]))))
    write(tmp_path / "data", images, annotations)
    params = Params(
        data=Data(format="camera_traps"),
        ingest=settings().model_copy(update={"images": "listed"}),
        split=Split(test_share=0.2),
    )
    run("ingest", params, {"data": tmp_path / "data"}, {"manifest": tmp_path / "manifest"})
    run("split", params, {"manifest": tmp_path / "manifest"}, {"split": tmp_path / "split"})
    frame = read_split(tmp_path / "split/split.parquet")
    assert len(frame) == 2000
    assert frame.groupby("group")["split"].nunique().max() == 1
    assert set(frame["split"]) == {"train", "val", "test"}
    blank = frame["labels"].map(len) == 0
    assert 0.65 < blank.mean() < 0.75
    for split in ("train", "test"):
        assert 0.5 < blank[frame["split"] == split].mean() < 0.9
    assert frame["sequence"].notna().all()
    assert read_manifest(tmp_path / "manifest/manifest.parquet")["width"].eq(64).all()


def test_every_mistake_is_named(tmp_path: Path) -> None:
    images = [
        image(0),
        image(0),
        image(1, file_name="site/0.jpg"),
        image(2, file_name="/etc/passwd"),
        image(3, file_name=4),
        {"file_name": "a.jpg"},
    ]
    text = seen(0, 1) | {"category_id": "1"}
    annotations = [seen(0, 1), seen(1, 1), seen(2, 1), seen(3, 1), seen(0, 77), text, seen(99, 1)]
    result = read(write(tmp_path, images, annotations), settings())
    assert [problem.what.split("{")[0] for problem in result.problems] == [
        "image id-0 appears twice",
        "path 'site/0.jpg' appears twice, first in image id-0",
        "path '/etc/passwd' is absolute",
        "image ",
        "image ",
        "annotation 0/77 names category 77, which does not exist",
        "annotation 0/1 names category '1', which does not exist",
        "annotation 99/1 names image id-99, which does not exist",
    ]
    assert result.problems[1].todo == "keep one of the two images, with the annotations of both"
    assert result.problems[2].todo == "write the path relative to the data folder, with / between folders"


def test_a_category_that_is_not_there_is_named(tmp_path: Path) -> None:
    root = write(tmp_path, [image(0)], [seen(0, 1)])
    with pytest.raises(DataError, match="no category 'blank'") as caught:
        read(root, settings(blank=["blank"]))
    assert "red fox" in caught.value.problems[0].todo
    without = write(tmp_path, [image(0)], [seen(0, 1)], [{"id": 1, "name": "red fox"}])
    assert read(without, Ingest()).classes.names == ["red fox"]  # a set without blanks needs no setting


def test_utf_8_names_and_spaces(tmp_path: Path) -> None:
    root = tmp_path / "data"
    (root / "Bilder alt").mkdir(parents=True)
    (root / "Bilder alt/Füchse 1.jpg").write_bytes(jpeg())
    write(root, [image(0, file_name="Füchse 1.jpg")], [seen(0, 1)])
    params = Params(data=Data(format="camera_traps"), ingest=settings(images="Bilder alt"))
    run("ingest", params, {"data": root}, {"manifest": tmp_path / "manifest"})
    assert read_manifest(tmp_path / "manifest/manifest.parquet")["path"].tolist() == ["Bilder alt/Füchse 1.jpg"]


@pytest.mark.parametrize(
    ("more", "labels"), [({}, 9), ({"unsure": [], "blank": ["empty", "unidentified"], "sequence_maximum": True}, 6)]
)
def test_settings_that_make_more_labels_than_memory_holds_are_refused(
    more: dict[str, Any], labels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    categories = [*CATEGORIES, {"id": 4, "name": "badger"}]
    frames = [seen(0, 1), seen(0, 3), *(seen(number, 9) for number in range(3))]
    write(tmp_path, [image(number) for number in range(3)], frames, categories)
    monkeypatch.setattr(camera_traps, "MOST_UNWRITTEN", labels)
    assert len(read(tmp_path, settings(**more)).rows) == 3
    monkeypatch.setattr(camera_traps, "MOST_UNWRITTEN", labels - 1)
    with pytest.raises(DataError, match=f"(?s)more than {labels - 1} labels.*leave out the images"):
        read(tmp_path, settings(**more))


@pytest.mark.slow
def test_the_most_labels_that_settings_may_make_fit_in_memory(tmp_path: Path) -> None:
    frames = [{"id": n, "file_name": f"{n}.jpg"} for n in range(600)]
    categories = [{"id": n, "name": f"class {n}"} for n in range(30_000)]
    write(tmp_path, frames, [{"image_id": n, "category_id": n % 2} for n in range(600)], categories)
    outcome = bounded(lambda: read(tmp_path, settings(unsure=["class 0", "class 1"])))
    assert outcome.kind == "done", outcome
    assert outcome.megabytes < 350, "18 million labels took 700 MB"  # 50 million are the most
