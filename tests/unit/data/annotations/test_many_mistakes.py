"""Annotations that are wrong in a million places, or name a million classes: refused before they take minutes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from faults.bounded import bounded
from unit.data.native import write_nus_wide, write_voc

from capnet.config import parse
from capnet.contracts import make_classes
from capnet.data.annotations import plain_files
from capnet.data.annotations.paths import DataFolder
from capnet.data.annotations.plain_files import read_lines
from capnet.data.annotations.reading import read_annotations
from capnet.data.splits.id_lists import read_id_list
from capnet.errors import MOST, DataError

JSON_FORMATS = ("coco", "camera_traps")
SETTINGS = {"coco": {"coco": {"train": "annotations.json", "test": ""}}, "camera_traps": {}}


def refuse(folder: Path, name: str, ingest: dict[str, Any]) -> None:
    problems = read_annotations(DataFolder(folder), parse({"data": {"format": name}, "ingest": ingest})).problems
    if problems:
        raise DataError(problems=problems)


def write(folder: Path, **parts: Any) -> None:
    content = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "annotations": [{"image_id": 1, "category_id": 1}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (folder / "annotations.json").write_text(json.dumps(content | parts))


@pytest.mark.slow
@pytest.mark.parametrize("name", JSON_FORMATS)
@pytest.mark.parametrize(
    "parts",
    [
        {"categories": [{"id": n, "name": f"c{n}"} for n in range(100_000)]},
        {"annotations": [{"image_id": 7}] * 500_000},
        {"images": [{"id": 1}] * 500_000},
    ],
    ids=lambda parts: next(iter(parts)),
)
def test_a_million_mistakes_in_json_end_the_search(tmp_path: Path, name: str, parts: dict[str, Any]) -> None:
    write(tmp_path, **parts)
    result = bounded(lambda: refuse(tmp_path, name, SETTINGS[name]))
    assert result.kind == "refused", result
    assert result.is_bounded, result
    assert result.megabytes < 200
    with pytest.raises(DataError) as caught:
        refuse(tmp_path, name, SETTINGS[name])
    assert len(caught.value.problems) <= MOST


@pytest.mark.slow
@pytest.mark.parametrize("line", [b"\n", b"x\n", b"\x1c"])
def test_lists_of_a_hundred_million_lines_are_not_kept(tmp_path: Path, line: bytes) -> None:
    write_nus_wide(tmp_path, "Train", {"a/1.jpg": [11]})
    write_nus_wide(tmp_path, "Test", {"a/1.jpg": [11]})
    write_voc(tmp_path, "VOC2012", "trainval", {"a": [1]}, b"")
    voc = {"voc": {"train": "VOC2012/trainval", "test": ""}}
    for name, file, ingest in (
        ("nus_wide", "ImageList/TrainImagelist.txt", {}),
        ("nus_wide", "Groundtruth/TrainTestLabels/Labels_cat_Train.txt", {}),
        ("voc", "VOC2012/ImageSets/Main/trainval.txt", voc),
    ):
        before = (tmp_path / file).read_bytes()
        (tmp_path / file).write_bytes(line * 100_000_000)
        result = bounded(lambda name=name, ingest=ingest: refuse(tmp_path, name, ingest), megabytes=8000)
        assert result.kind == "refused", (file, result)
        assert result.is_bounded, (file, result)
        (tmp_path / file).write_bytes(before)


def test_a_list_of_ids_is_read_no_further_than_a_hundred_thousand_mistakes(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("\n".join(map(str, range(MOST + 5000))))
    _, problems = read_id_list(path, ["a"], "ingest.train_list")
    assert len(problems) == MOST


def test_lines_end_where_editors_end_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, text = tmp_path / "a.txt", "a\r\n\r\nb\u2028c\x1cd\re\n\nf \x0b g\x85h"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert list(read_lines(path)) == ["a", "", "b\u2028c\x1cd", "e", "", "f \x0b g\x85h"]
    with pytest.raises(OSError, match="more than 3 lines"):
        list(read_lines(path, 3))
    path.write_bytes(b"a\n" * 100_000 + b"\xff\n")
    with pytest.raises(UnicodeDecodeError) as caught:
        list(read_lines(path))
    assert caught.value.start == 200_000
    path.write_text("a" * 300)
    monkeypatch.setattr(plain_files, "LONGEST_LINE", 200)
    with pytest.raises(OSError, match="a line of more than 200 letters"):
        list(read_lines(path))


@pytest.mark.parametrize("key", ["location", "seq_id"])
@pytest.mark.parametrize("value", [1.0, True, {"a": 1}, [1]])
def test_a_site_that_is_no_name_is_no_group(tmp_path: Path, key: str, value: Any) -> None:
    """1 and 1.0 are one site, and would be two groups in two splits."""
    write(tmp_path, images=[{"id": 1, "file_name": "a.jpg", key: value}])
    with pytest.raises(DataError, match=f"{key} .* is neither text nor a whole number"):
        refuse(tmp_path, "camera_traps", {})


@pytest.mark.parametrize("name", JSON_FORMATS)
@pytest.mark.parametrize(
    "parts",
    [
        {"images": [{"id": True, "file_name": "a.jpg"}]},
        {"annotations": [{"image_id": True, "category_id": 1}]},
        {"annotations": [{"image_id": 1, "category_id": True}]},
        {"categories": [{"id": True, "name": "cat"}]},
    ],
    ids=str,
)
def test_true_is_no_id(tmp_path: Path, name: str, parts: dict[str, Any]) -> None:
    write(tmp_path, **parts)
    with pytest.raises(DataError):
        refuse(tmp_path, name, SETTINGS[name])


def test_an_annotation_of_no_image_is_none_of_an_image_called_none(tmp_path: Path) -> None:
    write(tmp_path, images=[{"id": "None", "file_name": "a.jpg"}], annotations=[{"category_id": 1}])
    with pytest.raises(DataError, match="names image None"):
        refuse(tmp_path, "camera_traps", {})


@pytest.mark.slow
def test_one_long_text_in_every_row_of_a_small_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.parquet"
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 3000, pa.int32()), pa.array(["a" * 1_000_000]))
    table = pa.table({"path": [f"{n}.jpg" for n in range(3000)], "labels": texts})
    pq.write_table(table, path, store_schema=False, compression="zstd")
    assert path.stat().st_size < 20_000
    result = bounded(lambda: refuse(tmp_path, "csv", {"labels": path.name}), megabytes=8000)
    assert result.kind == "refused", result
    assert result.is_bounded, result


@pytest.mark.parametrize("kind", ["dictionary", "plain"])
def test_labels_as_text_and_as_lists_are_the_same_by_any_encoding(tmp_path: Path, kind: str) -> None:
    lists = pa.array([["cat", "dog"], [], None, ["dog"]])
    table = pa.table({"path": ["a.jpg", "b.jpg", "c.jpg", "d.jpg"], "labels": lists})
    pq.write_table(table, tmp_path / "labels.parquet", use_dictionary=kind == "dictionary")
    params = parse({"ingest": {"labels": "labels.parquet"}})
    rows = read_annotations(DataFolder(tmp_path), params).rows
    assert [list(row) for row in rows["labels"]] == [[0, 1], [], [], [1]]


def test_thirty_thousand_classes_with_one_slug_are_numbered_at_once() -> None:
    classes = make_classes([f"a{'!' * (n % 170)}{'?' * (n // 170)}" for n in range(30_000)])
    assert [item.slug for item in classes.items[:3]] == ["a", "a-2", "a-3"]
    assert classes.items[-1].slug == "a-30000"
