"""Warnings about labels and images that are allowed and yet more often a mistake, by ingest on files."""

from __future__ import annotations

import logging
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image
from unit.data.native import write_json

from capnet.config import parse
from capnet.contracts import make_classes
from capnet.data.annotations.likely_mistakes import likely_mistakes
from capnet.steps.ingest import ingest


def warnings_of(root: Path, table: dict[str, str], caplog: pytest.LogCaptureFixture, **unlisted: int) -> list[str]:
    """Write images of the colour that each name begins with, and their table ``{name: labels}``; ingest them."""
    (root / "images").mkdir(parents=True)
    for name in [*table, *unlisted]:
        Image.new("RGB", (40, 40), (ord(name[0]), 0, 0)).save(root / f"images/{name}.png")
    rows = "".join(f"images/{name}.png,{labels}\n" for name, labels in table.items())
    (root / "labels.csv").write_text("path,labels,unknown\n" + rows)
    (root / "images/notes.txt").write_text("no image\n")
    with caplog.at_level(logging.WARNING, "capnet"):
        ingest(parse({"data": {"root": str(root)}}), {"data": root}, {"manifest": root / "out"})
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize("data_format", ["csv", "camera_traps"])
def test_a_class_that_says_that_nobody_knows_is_named(data_format: str) -> None:
    rows = pd.DataFrame({"labels": [[0], [1], []], "unknown": [[]] * 3, "path": list("abc")})
    rows = rows.assign(group=None, slice=None, sha256=None)
    (warning,) = likely_mistakes(rows, make_classes(["Unidentified", "fox"]), data_format)
    assert warning.startswith("class 'Unidentified' is learned like any other")
    assert ("ingest.camera_traps.unsure" in warning) == (data_format == "camera_traps")


@pytest.mark.parametrize("name", ["-", "?", "--", "???", "\u2014", "C++", "?!"])
def test_a_name_of_marks_alone_is_named(name: str) -> None:
    """A cell with `-` for nothing or `?` for "not sure" made a class without a word."""
    rows = pd.DataFrame({"labels": [[0], [1], []], "unknown": [[]] * 3, "path": list("abc")})
    rows = rows.assign(group=None, slice=None, sha256=None)
    warnings = list(likely_mistakes(rows, make_classes([name, "fox"]), "csv"))
    assert len(warnings) == (name != "C++")
    for warning in warnings:
        todo = "name in column unknown what" if set(name) == {"?"} else "give such images no label"
        assert warning.startswith(f"class {name!r} is learned like any other")
        assert todo in warning


@pytest.mark.parametrize(
    ("names", "named"),
    [
        (["Person", "fox", "person"], "'Person' and 'person'"),
        (["Red  Fox", "red fox"], "'Red  Fox' and 'red fox'"),
        (["Fox", "FOX", "fox"], "'Fox' and 'FOX', 'Fox' and 'fox'"),
        (["Fox", "fox", "Owl", "owl"], "'Fox' and 'fox', 'Owl' and 'owl'"),
        (["fox", "foxes"], ""),
    ],
)
@pytest.mark.parametrize("data_format", ["coco", "camera_traps", "csv"])
def test_classes_that_differ_in_capitals_only_are_named(names: list[str], named: str, data_format: str) -> None:
    """A table is refused by its reader, unless classes.csv lists both."""
    rows = pd.DataFrame({"labels": [[0], [1], []], "unknown": [[]] * 3, "path": list("abc")})
    rows = rows.assign(group=None, slice=None, sha256=None)
    warnings = list(likely_mistakes(rows, make_classes(names), data_format))
    what = f"classes differ in capitals or blanks only: {named}. Each is learned"
    assert [what in text for text in warnings] == [True] * bool(named and data_format != "csv")


@pytest.mark.parametrize(
    ("paths", "group", "is_named"),
    [
        (["train/patient00001/study1/a.jpg", "train/patient00002/study1/a.jpg"], None, True),
        (["Camera 1/a.jpg", "Camera 2/a.jpg"], None, True),
        (["images/Site 004/a.jpg", "images/Site 009/a.jpg"], None, True),
        (["patient1/a.jpg", "patient2/a.jpg"], "1", False),
        (["patient1/a.jpg", "patient1/b.jpg"], None, False),
        (["patients/a1.jpg", "inpatient2/b1.jpg"], None, False),
    ],
)
def test_folders_that_read_like_groups_are_named(paths: list[str], group: str | None, is_named: bool) -> None:
    rows = pd.DataFrame({"path": paths, "labels": [[0], []], "unknown": [[], []]})
    rows = rows.assign(group=group, slice=None, sha256=None)
    warnings = list(likely_mistakes(rows, make_classes(["oedema"]), "csv"))
    assert [paths[0].split("/")[-3 if "study" in paths[0] else -2] in text for text in warnings] == [True] * is_named


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"a": "fox,", "b": "fox|deer,"}, ["class 'fox' is missing on no image"]),
        ({"a": "fox,", "b": "deer,fox", "c": "fox,"}, ["class 'fox' is missing on no image"]),
        ({"a": "deer,fox", "b": ",fox"}, ["class 'fox' is unknown on every image: it can be neither learned nor"]),
        ({"a": "fox,", "b": "deer,", "c": ","}, []),
        ({"a": "fox,"}, []),
    ],
)
def test_a_class_that_no_image_is_without_is_named(tmp_path, caplog, table, expected) -> None:
    result = warnings_of(tmp_path / "set", table, caplog)
    assert len(result) == len(expected)
    assert all(text.startswith(words) for text, words in zip(result, expected, strict=True))


def test_equal_images_with_other_labels_are_named_and_those_with_equal_ones_not(tmp_path, caplog) -> None:
    table = {"a1": "fox,", "a2": "fox,", "b1": "fox|deer,", "b2": "deer,", "c1": "deer,", "c2": "deer,fox", "d": ","}
    (result,) = warnings_of(tmp_path / "set", table, caplog)
    assert result.startswith("'images/b1.png' and 'images/b2.png' are the same image and have different labels")
    assert "and 1 more such image:" in result


def test_of_several_equal_images_two_with_other_labels_are_named(tmp_path, caplog) -> None:
    table = {"a1": "fox,", "a2": "fox,", "a3": "fox,deer", "a4": ",", "b": "deer,"}
    (result,) = warnings_of(tmp_path / "set", table, caplog)
    assert result.startswith("'images/a1.png' and 'images/a3.png' are the same image and have different labels:")


def test_images_beside_the_listed_ones_are_counted_and_other_files_not(tmp_path, caplog) -> None:
    (result,) = warnings_of(tmp_path / "one", {"a": "fox,", "b": "deer,"}, caplog, z=1)
    assert result.startswith("'images/z.png' has no row and is not used")
    caplog.clear()
    (result,) = warnings_of(tmp_path / "two", {"a": "fox,", "b": "deer,"}, caplog, z=1, y=1, **{"._a": 1})
    assert result.startswith("2 images, 'images/y.png' first, have no row")


@pytest.mark.parametrize("kind", ["coco", "camera_traps"])
def test_images_beside_those_of_a_json_file_are_counted_and_those_left_out_are_not(tmp_path, caplog, kind) -> None:
    """Of camera traps, c.png has no annotation, so that it is left out for a reason of its own."""
    for number, name in enumerate(("images/a", "images/b", "images/c", "images/z", "images/y", "elsewhere/x")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (40, 40), (40 * number, 0, 0)).save(tmp_path / f"{name}.png")
    images = [{"id": n, "file_name": f"./images/{name}.png", "location": n} for n, name in enumerate("abc")]
    classes = [{"id": 1, "name": "fox"}, {"id": 2, "name": "deer"}]
    seen = [{"id": n, "image_id": n, "category_id": n + 1} for n in range(2)]
    write_json(tmp_path / "mine.json", images=images, annotations=seen, categories=classes)
    files = {
        "coco": {"train": "mine.json", "train_images": "", "test": ""},
        "camera_traps": {"file": "mine.json", "blank": []},
    }
    params = parse({"data": {"root": str(tmp_path), "format": kind}, "ingest": {kind: files[kind]}})
    with caplog.at_level(logging.WARNING, "capnet"):
        ingest(params, {"data": tmp_path}, {"manifest": tmp_path / "out"})
    (message,) = [record.getMessage() for record in caplog.records if "not used" in record.getMessage()]
    assert message == (
        "2 images, 'images/y.png' first, have no entry in the annotations and are not used: an image on which nothing"
        " is needs one, too; capnet label asks about new ones"
    )


@pytest.mark.parametrize(
    ("first", "second", "is_named"),
    [
        ("Site 9", "site 9", True),
        ("a  b", "a b", True),
        ("h\N{LATIN SMALL LETTER O WITH DIAERESIS}hle", "ho\N{COMBINING DIAERESIS}hle", True),
        ("a", "b", False),
    ],
)
def test_groups_that_differ_in_capitals_blanks_or_unicode_form_only_are_named(
    tmp_path, caplog, first, second, is_named
) -> None:
    (tmp_path / "images").mkdir()
    for name in "ab":
        Image.new("RGB", (40, 40), (ord(name), 0, 0)).save(tmp_path / f"images/{name}.png")
    rows = f"images/a.png,fox,{first}\nimages/b.png,deer,{second}\n"
    (tmp_path / "labels.csv").write_text("path,labels,group\n" + rows)
    with caplog.at_level(logging.WARNING, "capnet"):
        ingest(parse({"data": {"root": str(tmp_path)}}), {"data": tmp_path}, {"manifest": tmp_path / "out"})
    assert any("may come into train and test" in record.getMessage() for record in caplog.records) == is_named
