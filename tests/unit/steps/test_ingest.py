"""The ingest stage on real and broken picture files."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from capnet.config import Params
from capnet.contracts import read_classes, read_manifest
from capnet.errors import DataError
from capnet.stages import run


def picture(path: Path, width: int = 40, height: int = 30, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)).save(path)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    for number, name in enumerate(("a.jpg", "b.png", "c.jpg")):
        picture(root / "images" / name, 40 + number, 30, number)
    (root / "labels.csv").write_text("path,labels,group\nimages/c.jpg,dog|cat,g\nimages/a.jpg,,\nimages/b.png,cat,g\n")
    return root


def ingest(data: Path, out: Path) -> dict[str, float]:
    return run("ingest", Params(), {"data": data}, {"manifest": out})


def refused(data: Path, out: Path) -> list[str]:
    with pytest.raises(DataError) as caught:
        ingest(data, out)
    assert caught.value.exit_code == 3
    assert not out.exists()
    assert [path for path in out.parent.iterdir() if path != data] == []  # nothing half-written
    return [str(problem) for problem in caught.value.problems]


def test_manifest_holds_sizes_and_hashes_in_the_order_of_the_table(data: Path, tmp_path: Path) -> None:
    assert ingest(data, tmp_path / "manifest") == {"pictures": 3.0, "classes": 2.0, "without_label": 1.0}
    frame = read_manifest(tmp_path / "manifest" / "manifest.parquet")
    assert frame["path"].tolist() == ["images/c.jpg", "images/a.jpg", "images/b.png"]
    assert frame["image_id"].tolist() == ["images/c", "images/a", "images/b"]
    assert [list(row) for row in frame["labels"]] == [[0, 1], [], [0]]
    assert frame["width"].tolist() == [42, 40, 41]
    assert frame["sha256"].tolist() == [hashlib.sha256((data / path).read_bytes()).hexdigest() for path in frame["path"]]
    assert frame["group"].isna().tolist() == [False, True, False]
    assert read_classes(tmp_path / "manifest" / "classes.json").names == ["cat", "dog"]


def test_two_runs_give_equal_bytes(data: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        ingest(data, tmp_path / name)
    for name in ("manifest.parquet", "classes.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_broken_pictures_and_wrong_labels_are_reported_together(data: Path, tmp_path: Path) -> None:
    whole = (data / "images/c.jpg").read_bytes()
    (data / "images/c.jpg").write_bytes(whole[: len(whole) * 2 // 3])
    (data / "images/a.jpg").write_bytes(b"")
    (data / "images/text.jpg").write_text("this is no picture")
    with open(data / "labels.csv", "a") as file:
        file.write("images/text.jpg,cat,\nimages/gone.jpg,cat,\nb.png,cat,\nimages/A.jpeg,cat,\nimages,cat,\nimages/x.jpg,cat\n")
    found = refused(data, tmp_path / "manifest")
    expected = [
        ("cells", "row 10"),
        ("'images/c.jpg': does not decode", "row 2"),
        ("'images/a.jpg': empty file", "row 3"),
        ("'images/text.jpg': not a picture", "row 5"),
        ("'images/gone.jpg': missing", "row 6"),
        ("'b.png': missing", "write images/b.png"),
        ("'images/A.jpeg': missing", "did you mean 'images/a.jpg'"),
        ("'images': cannot be read", "row 9"),
    ]
    assert len(found) == len(expected)
    for text, (what, part) in zip(found, expected, strict=True):
        assert what in text
        assert part in text


@pytest.mark.parametrize("cut", [3, 40, 400, 0.1, 0.5, 0.9])
def test_truncation_is_found_wherever_training_would_fail(data: Path, tmp_path: Path, shared: Path, cut: float) -> None:
    """The shortened decoding of ingest must find what a full decoding finds."""
    source = shared / "data/coco_mini/val2017"
    for number, path in enumerate(sorted(source.glob("*.jpg"))[:6]):
        whole = path.read_bytes()
        part = whole[: int(len(whole) * cut)] if cut < 1 else whole[: -int(cut)]
        (data / f"images/{number}.jpg").write_bytes(part)
        with pytest.raises(OSError, match=r"(?i)truncated"), Image.open(data / f"images/{number}.jpg") as image:
            image.load()
    rows = "".join(f"images/{number}.jpg,cat\n" for number in range(6))
    (data / "labels.csv").write_text("path,labels\n" + rows)
    assert len([text for text in refused(data, tmp_path / "manifest") if "does not decode" in text]) == 6


def test_a_picture_that_unpacks_to_gigabytes_is_refused(data: Path, tmp_path: Path) -> None:
    Image.new("1", (20000, 20000)).save(data / "images/a.jpg", format="PNG")
    (text,) = refused(data, tmp_path / "manifest")
    assert "images/a.jpg" in text


def test_empty_data_folder(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (text,) = refused(tmp_path / "data", tmp_path / "manifest")
    assert "the data folder is empty" in text
