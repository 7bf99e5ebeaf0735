"""Thumbnails: only when asked for, small, without metadata, and of the pictures that are most wrong."""

from __future__ import annotations

import base64
import io
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from unit.evaluation.made_run import make_run
from unit.evaluation.report.page import Page, html_of

from capnet.evaluation.report.thumbnails import LABELS, PER_CLASS, thumbnail, worst_images, wrongness
from capnet.evaluation.split_rows import SplitRows


def test_pictures_never_travel_unasked(tmp_path: Path) -> None:
    made = make_run(tmp_path, 12, 60, images=True)
    assert "<img" not in html_of(made)
    assert "data:" not in html_of(made).replace("img-src data:", "")
    html = html_of(made, thumbnails=True, worst=4)
    sources = [values["src"] or "" for tag, values in Page(html).tags if tag == "img"]
    assert 0 < len(sources) <= 12
    for source in sources:
        with Image.open(io.BytesIO(base64.b64decode(source.split(",", 1)[1]))) as image:
            assert image.format == "JPEG"
            assert max(image.size) == 160
    assert html_of(made, thumbnails=True, worst=4) == html


def test_a_thumbnail_carries_no_metadata_and_is_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010E] = "patient Jane Doe"
    exif[0x0112] = 6  # the camera was turned
    Image.new("RGB", (400, 200), "red").save(tmp_path / "a.jpg", exif=exif, comment=b"patient Jane Doe")
    data = base64.b64decode(thumbnail(tmp_path / "a.jpg").split(",", 1)[1])
    assert b"Jane" not in data
    with Image.open(io.BytesIO(data)) as image:
        assert image.size == (80, 160)
        assert not image.getexif()
        assert "comment" not in image.info


def test_a_picture_in_a_shard_and_one_of_16_bits_have_thumbnails(tmp_path: Path) -> None:
    pixels = np.full((40, 60), 51_400, dtype=np.uint16)  # 200 of 255; clipped it would be white
    Image.fromarray(pixels).save(tmp_path / "a.png")
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        tar.add(tmp_path / "a.png", "a.png")
    source = thumbnail(tmp_path / "s.tar" / "a.png")
    assert source == thumbnail(tmp_path / "a.png")
    with Image.open(io.BytesIO(base64.b64decode(source.split(",", 1)[1]))) as image:
        np.testing.assert_allclose(np.asarray(image), 200, atol=2)


def test_an_unreadable_picture_leaves_a_blank(tmp_path: Path) -> None:
    made = make_run(tmp_path, 6, 40, images=True)
    for path in (made.data / "images").iterdir():
        path.write_bytes(path.read_bytes()[:200])
    page = Page(html_of(made, thumbnails=True))
    assert page.problems == []
    assert "no thumbnail" in page.text
    assert thumbnail(tmp_path / "absent.jpg") == ""


def test_each_picture_has_its_path_and_of_a_long_one_the_end(tmp_path: Path) -> None:
    made = make_run(tmp_path, 12, 60, images=True)
    page = Page(html_of(made, thumbnails=True, worst=4))
    titles = [values["title"] for _, values in page.tags if values.get("class") == "path"]
    assert len(titles) == sum(tag == "img" for tag, _ in page.tags) > 0
    assert all((made.data / str(title)).is_file() for title in titles)
    assert all(str(title) in "".join(page.texts) for title in titles)
    rows = pd.DataFrame({"image_id": ["a"], "path": ["folder/" * 20 + "<b>.jpg"]})
    labels, one = np.array([[True]]), np.full(1, 0.5)
    groups = worst_images(
        SplitRows("test", rows, labels, labels, {}), labels * 0.1, one, ["x"], np.array(["head"]), 1, Path("nowhere")
    )
    shown = "/".join(groups[0]["pictures"][0]["parts"])
    assert (len(shown), shown[0], shown.endswith("/folder/<b>.jpg")) == (80, "…", True)


def test_worst_pictures_are_those_furthest_on_the_wrong_side() -> None:
    labels = np.array([[True, False], [True, False], [False, True], [False, False]])
    unknown = np.array([[False, False], [False, False], [False, False], [True, False]])
    scores = np.array([[0.9, 0.1], [0.2, 0.1], [0.6, 0.9], [0.999, 0.1]], dtype=np.float32)
    thresholds = np.array([0.5, 0.5])
    wrong = wrongness(labels, ~unknown, scores, thresholds)
    assert wrong[1, 0] == pytest.approx(np.log(4), abs=1e-6)
    assert wrong[2, 0] == pytest.approx(np.log(1.5), abs=1e-6)
    assert wrong[3, 0] == -np.inf, "what is unknown cannot be wrong"
    rows = pd.DataFrame({"image_id": list("abcd"), "path": list("abcd")})
    groups = worst_images(
        SplitRows("test", rows, labels, ~unknown, {}),
        scores,
        thresholds,
        ["x", "y"],
        np.array(["head", "tail"]),
        3,
        Path("nowhere"),
    )
    assert [group["bucket"] for group in groups] == ["head", "tail"]
    assert [(item["id"], item["kind"]) for item in groups[0]["pictures"]] == [("b", "missed"), ("c", "false alarm")]
    assert groups[1]["pictures"] == []


def test_labels_of_a_picture_are_the_highest_scored_ones_and_the_rest_is_counted() -> None:
    classes = LABELS + 5
    labels = np.ones((1, classes), dtype=bool)
    scores = np.linspace(0.1, 0.9, classes, dtype=np.float32)[None, :]
    rows = pd.DataFrame({"image_id": ["a"], "path": ["a"]})
    names = [f"c{i}" for i in range(classes)]
    groups = worst_images(
        SplitRows("test", rows, labels, labels, {}),
        scores,
        np.full(classes, 0.5),
        names,
        np.array(["tail"] * classes),
        3,
        Path("nowhere"),
    )
    shown = groups[0]["pictures"][0]
    assert shown["true"]["labels"][0] == {"name": names[-1], "found": True}
    assert (len(shown["true"]["labels"]), shown["true"]["more"]) == (LABELS, 5)
    assert shown["extra"] == {"labels": [], "more": 0}
    assert (shown["kind"], shown["name"]) == ("missed", "c0")


def test_one_bad_class_does_not_fill_its_bucket() -> None:
    labels = np.zeros((8, 2), dtype=bool)
    scores = np.stack([np.linspace(0.9, 0.95, 8), np.linspace(0.6, 0.65, 8)], axis=1).astype(np.float32)
    scores[6:, 0] = 0.1  # two pictures are only wrong about the second class
    rows = pd.DataFrame({"image_id": list("abcdefgh"), "path": list("abcdefgh")})
    groups = worst_images(
        SplitRows("test", rows, labels, ~labels, {}),
        scores,
        np.full(2, 0.5),
        ["x", "y"],
        np.array(["head", "head"]),
        6,
        Path("nowhere"),
    )
    assert [(item["id"], item["name"]) for item in groups[0]["pictures"]] == [
        ("f", "x"),
        ("e", "x"),
        ("h", "y"),
        ("g", "y"),
    ]
    assert PER_CLASS == 2
