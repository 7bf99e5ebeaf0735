"""The VOC reader: the published long-tailed list out of real XML, difficult objects, damaged and hostile archives."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path

import pytest
from unit.data.native import jpeg, voc_object, voc_xml, write_voc

from capnet.commands.preset import read as preset
from capnet.config import Ingest
from capnet.contracts import read_classes, read_manifest, read_split
from capnet.data.annotations.paths import DataFolder
from capnet.data.annotations.readers import voc
from capnet.data.annotations.readers.voc import CLASSES
from capnet.data.annotations.rows import Annotations
from capnet.errors import DataError
from capnet.stages import run

Voc = voc.Settings


def read(root: Path, settings: Ingest) -> Annotations:
    return voc.read(DataFolder(root), settings)


def published(path: Path) -> dict[str, list[int]]:
    with open(path) as file:
        return {row["image"]: [int(c) for c in row["labels"].split()] for row in csv.DictReader(file)}


@pytest.mark.slow
def test_voc_lt_comes_out_of_a_voc_kit_with_the_preset(shared: Path, tmp_path: Path) -> None:
    source = shared / "data/labels"
    kit = tmp_path / "data/VOCdevkit"
    write_voc(kit, "VOC2012", "trainval", published(source / "voc2012_trainval.csv"), jpeg())
    write_voc(kit, "VOC2007", "test", published(source / "voc2007_test.csv"), jpeg())
    params = preset("voc-lt")
    metrics = run("ingest", params, {"data": tmp_path / "data"}, {"manifest": tmp_path / "manifest"})
    assert metrics == {"pictures": 11540.0 + 4952, "classes": 20.0, "without_label": 0.0}
    run("split", params, {"manifest": tmp_path / "manifest"}, {"split": tmp_path / "split"})
    expected = json.loads((shared / "reference/split_fixture.json").read_text())["voc"]
    frame = read_split(tmp_path / "split/split.parquet")
    train = frame[frame["split"] == "train"]["image_id"].tolist()
    assert train == list(published(source / "voc_lt_train.csv"))
    assert hashlib.sha256("\n".join(train).encode()).hexdigest() == expected["sha256_ids_in_published_order"]
    classes = read_classes(tmp_path / "split/classes.json")
    assert classes.train_counts.tolist() == expected["class_counts"]
    assert [sum(item.bucket == bucket for item in classes.items) for bucket in ("head", "medium", "tail")] == [6, 6, 8]
    test = frame[frame["split"] == "test"]
    assert len(test) == 4952
    counts = [0] * 20
    for row in test["labels"]:
        for c in row:
            counts[c] += 1
    assert counts == expected["test_counts_including_difficult"]
    assert frame["path"].iloc[0] == f"VOCdevkit/VOC2012/JPEGImages/{train[0]}.jpg"
    manifest = read_manifest(tmp_path / "manifest/manifest.parquet")
    assert manifest["image_id"].iloc[0] == "2008_000002"


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    write_voc(tmp_path, "VOC2012", "trainval", {"2008_000001": [14], "2008_000002": [0, 14]}, jpeg())
    objects = [voc_object("dog", 1), voc_object("cat", 1), voc_object("cat"), voc_object("person", 1)]
    (tmp_path / "VOC2012/Annotations/2008_000001.xml").write_text(voc_xml("2008_000001", objects))
    return tmp_path


ONLY_TRAIN = Voc(test="")


@pytest.mark.parametrize(
    ("difficult", "labels", "unknown"),
    [
        ("counted", ["cat", "dog", "person"], []),
        ("unknown", ["cat"], ["dog", "person"]),
        ("ignored", ["cat"], []),
    ],
)
def test_difficult_objects_count_are_unknown_or_do_not_count(
    kit: Path, difficult: str, labels: list[str], unknown: list[str]
) -> None:
    result = read(kit, Ingest(voc=Voc.model_validate({"test": "", "difficult": difficult})))
    assert result.problems == []
    row = result.rows.iloc[0]
    assert [CLASSES[c] for c in row["labels"]] == labels
    assert [CLASSES[c] for c in row["unknown"]] == unknown
    assert result.rows["given_split"].tolist() == [None, None], "one set alone is no division"


def test_two_image_sets_are_given_splits(kit: Path) -> None:
    write_voc(kit, "VOC2007", "test", {"000001": [3]}, jpeg())
    assert read(kit, Ingest()).rows["given_split"].tolist() == ["train", "train", "test"]


def test_prompt_names_come_from_classes_csv_and_the_order_stays(kit: Path) -> None:
    (kit / "classes.csv").write_text("name,prompt_name,critical\ntvmonitor,a television,\nperson,,true\n")
    classes = read(kit, Ingest(voc=ONLY_TRAIN)).classes
    assert tuple(classes.names) == CLASSES
    assert classes.prompt_names[-1] == "a television"
    assert [item.name for item in classes.items if item.critical] == ["person"]
    (kit / "classes.csv").write_text("name\ntv monitor\n")
    (problem,) = read(kit, Ingest(voc=ONLY_TRAIN)).problems
    assert "tvmonitor" in problem.todo


def test_every_damaged_annotation_is_named(kit: Path) -> None:
    listing = kit / "VOC2012/ImageSets/Main/trainval.txt"
    listing.write_text("2008_000001\n2008_000002\n../../etc/passwd\n2008_000003\n2008_000001\n2008_000004 1\n\n")
    (kit / "VOC2012/Annotations/2008_000002.xml").write_text("<annotation><object>")
    (kit / "VOC2012/Annotations/2008_000004.xml").write_text(voc_xml("x", [voc_object("unicorn")]))
    result = read(kit, Ingest(voc=ONLY_TRAIN))
    assert [(problem.what.split(":")[0], Path(problem.where.split(",")[0]).name) for problem in result.problems] == [
        ("not an annotation", "2008_000002.xml"),
        ("image id '../../etc/passwd' is no file name", "trainval.txt line 3"),
        ("the annotation of an image is missing", "2008_000003.xml"),
        ("object 'unicorn' is none of the 20 classes", "2008_000004.xml"),
        ("path 'VOC2012/JPEGImages/2008_000001.jpg' appears twice", "trainval.txt line 5"),
    ]
    assert result.rows["image_id"].tolist() == ["2008_000001"]


def test_an_image_set_with_a_byte_order_mark_and_windows_lines(kit: Path) -> None:
    (kit / "VOC2012/ImageSets/Main/trainval.txt").write_bytes(b"\xef\xbb\xbf2008_000001  1\r\n2008_000002 -1\r\n")
    assert read(kit, Ingest(voc=ONLY_TRAIN)).rows["image_id"].tolist() == ["2008_000001", "2008_000002"]


def test_entities_are_not_followed(kit: Path) -> None:
    bomb = '<!DOCTYPE a [<!ENTITY b "xxxxxxxxxx"><!ENTITY f SYSTEM "file:///etc/passwd">]><annotation><object><name>&f;</name></object></annotation>'
    (kit / "VOC2012/Annotations/2008_000001.xml").write_text(bomb)
    (problem,) = read(kit, Ingest(voc=ONLY_TRAIN)).problems
    assert "root:" not in str(problem)


@pytest.mark.parametrize(
    ("chosen", "what"),
    [("VOC2012/val", "cannot read the list"), ("trainval", "is no image set")],
)
def test_a_set_that_is_not_there_says_what_to_do(kit: Path, chosen: str, what: str) -> None:
    with pytest.raises(DataError, match=what) as caught:
        read(kit, Ingest(voc=Voc(train=chosen, test="")))
    assert "VOC2012" in caught.value.problems[0].todo
    with pytest.raises(DataError, match="no image set is named"):
        read(kit, Ingest(voc=Voc(train="", test="")))
