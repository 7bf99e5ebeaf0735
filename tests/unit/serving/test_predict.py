"""Batch prediction: what is listed, what is written, what a broken picture does."""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import os
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from faults.bounded import bounded
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from unit.serving import small_batch

from capnet.config import Runtime
from capnet.data.images import stream
from capnet.data.images.shards import add_member
from capnet.errors import ConfigError, DataError
from capnet.evaluation.tte import Scorer
from capnet.model.capnet import CapNet
from capnet.model.towers import ImageTower
from capnet.serving import predict as prediction
from capnet.serving.engine import Served
from capnet.serving.image_source import NO_UTF8, list_images
from capnet.serving.predict import check_out, predict

pytestmark = pytest.mark.slow

served = small_batch.served
folder = small_batch.folder


def test_all_pictures_are_scored_as_in_an_evaluation_and_the_broken_one_is_named(
    served: Served, folder: Path, tmp_path: Path
) -> None:
    source = list_images(str(folder))
    assert source.names == [f"camera 0/é{n}.JPG" for n in (0, 2, 4, 6)] + [f"camera 1/é{n}.JPG" for n in (1, 3, 5)]
    predict(served, "capnet version 1", source, tmp_path / "out.parquet", images_per_part=3)
    table = pd.read_parquet(tmp_path / "out.parquet")
    assert table["path"].tolist() == source.names
    good = table[table["fault"] == ""]
    assert table[table["fault"] != ""]["path"].tolist() == ["camera 1/é3.JPG"]
    hashes = [hashlib.sha256((folder / path).read_bytes()).hexdigest() for path in good["path"]]
    rows = pd.DataFrame({"path": good["path"], "sha256": hashes})
    expected = Scorer(tmp_path / "outputs" / "model", Runtime()).score(rows, folder, "test").scores["capnet"]
    columns = [f"score {name}" for name in served.names]
    np.testing.assert_allclose(good[columns].to_numpy(), expected, atol=1e-6)
    for labels, row in zip(good["labels"], good[columns].to_numpy(), strict=True):
        assert list(labels) == [
            name
            for name, score, limit in zip(served.names, row, served.class_thresholds, strict=True)
            if score >= limit
        ]
    assert table[table["fault"] != ""][columns].isna().all(axis=None)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".out")] == []


def test_scores_are_computed_in_one_thread_while_towers_run_in_the_others(
    served: Served, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several would wait for cores that the towers' threads use, and hold them up."""
    seen, compute = [], CapNet.ensemble

    def ensemble(*arguments: Any) -> Any:
        seen.append(torch.get_num_threads())
        return compute(*arguments)

    monkeypatch.setattr(CapNet, "ensemble", ensemble)
    monkeypatch.setattr(ImageTower, "is_convolutional", True)
    monkeypatch.setattr(stream, "BATCH_VIEWS", 2)
    served.scorer.threads = 2
    torch.set_num_threads(2)
    source = list_images(str(folder))
    for _ in served.stream(source.names, source.root, len(source.names)):
        assert torch.get_num_threads() == 2
    assert len(seen) > 1
    assert set(seen) == {1}
    torch.set_num_threads(1)


def test_csv_and_megadetector_say_the_same_as_parquet(served: Served, folder: Path, tmp_path: Path) -> None:
    (folder / "one\rtwo.jpg").write_bytes(b"a carriage return begins a row where it is not in quotes")
    source = list_images(str(folder))
    for name in ("out.parquet", "out.csv", "out.json"):
        predict(served, "capnet version 1", source, tmp_path / name)
    table = pd.read_parquet(tmp_path / "out.parquet")
    with open(tmp_path / "out.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(table), "Parquet leaves out a column that its schema has not"
    assert [row["path"] for row in rows] == source.names
    assert [row["labels"] for row in rows] == ["|".join(labels) for labels in table["labels"]]
    assert [np.float32(row["score cat"]) for row in rows if not row["fault"]] == table[table["fault"] == ""][
        "score cat"
    ].tolist()

    content = json.loads((tmp_path / "out.json").read_text())
    assert content["info"]["format_version"] == "1.4"
    assert all(key.isdigit() for key in (*content["classification_categories"], *content["detection_categories"]))
    assert [image["file"] for image in content["images"]] == source.names
    for image, labels, fault in zip(content["images"], table["labels"], table["fault"], strict=True):
        if fault:
            assert image["detections"] is None
            assert fault in image["failure"]
            continue
        boxes = image["detections"]
        assert {content["classification_categories"][key] for box in boxes for key, _ in box["classifications"]} == set(
            labels
        )
        for box in boxes:
            confidences = [number for _, number in box["classifications"]]
            assert confidences == sorted(confidences, reverse=True)
            assert (box["category"], box["bbox"], box["conf"]) == ("1", [0.0, 0.0, 1.0, 1.0], confidences[0])
            assert 0 <= confidences[-1] <= confidences[0] <= 1


def test_a_class_with_the_separator_of_labels_in_its_name_is_pointed_out(
    served: Served, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In CSV its label read as two labels of other classes."""
    doubtful = replace(served, names=["cat|dog", *served.names[1:]])
    for name in ("out.parquet", "out.csv"):
        predict(doubtful, "m", list_images(str(folder)), tmp_path / name)
    warnings = [text for text in caplog.messages if "separates labels" in text]
    what = "| separates labels, and classes have it in their names (cat|dog)"
    assert warnings == [f"out.csv: {what}: write .parquet to keep them apart"]


@pytest.mark.parametrize("column", ["path", "image", "file"])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_tables_name_pictures_beside_them(folder: Path, column: str, kind: str) -> None:
    frame = pd.DataFrame({"note": ["x", "y", "z"], column: ["camera 0/é2.JPG", "gone.jpg", "camera 0/é2.JPG"]})
    frame.to_csv(folder / "list.csv", index=False) if kind == "csv" else frame.to_parquet(folder / "list.parquet")
    source = list_images(str(folder / f"list.{kind}"))
    assert (source.names, source.root) == (["camera 0/é2.JPG", "gone.jpg"], folder)


def test_a_missing_picture_of_a_table_is_named(served: Served, folder: Path, tmp_path: Path) -> None:
    (folder / "list.csv").write_text("path\ngone.jpg\n/etc/passwd\n")
    done = predict(served, "m", list_images(str(folder / "list.csv")), tmp_path / "out.csv")
    assert done.faults[0] == ("gone.jpg", "missing")
    assert (done.images, done.not_read) == (2, 2)
    assert all(fault for _, fault in done.faults)
    assert (tmp_path / "out.csv").read_text().splitlines()[1].startswith("gone.jpg,,missing,")


def test_what_cannot_be_listed_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "t.csv").write_text("name\nx\n")
    (tmp_path / "t.parquet").write_text("x")
    (tmp_path / "list.txt").write_text("a.jpg\n")
    for workspace, text in (
        ("empty", "no images"),
        ("nowhere", "neither a folder nor a file"),
        ("t.csv", "no column path"),
        ("t.parquet", "not a Parquet file"),
        ("list.txt", "neither an image nor a table(.|\n)*table with a column path"),
    ):
        with pytest.raises(DataError, match=text):
            list_images(str(tmp_path / workspace))
    with pytest.raises(ConfigError, match="unknown kind of output"):
        prediction.format_of(Path("out.xlsx"))


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_table_that_would_fill_the_memory_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"list.{kind}"
    path.touch()
    os.truncate(path, 2 * 10**12)
    outcome = bounded(lambda: list_images(str(path)))
    assert (outcome.kind, outcome.has_three_parts) == ("refused", True), outcome
    assert outcome.megabytes < 200
    assert outcome.seconds < 5


def test_paths_of_a_parquet_file_are_texts_that_files_can_have(tmp_path: Path) -> None:
    table = tmp_path / "t.parquet"
    pd.DataFrame({"path": [None, "a.jpg"]}).to_parquet(table)
    assert list_images(str(table)).names == ["", "a.jpg"]
    for value, words in (
        (b"a.jpg", "holds no text: b'a.jpg'"),
        (["a.jpg"], "holds no text"),
        ("a" * 2**18, "a cell of"),
    ):
        pd.DataFrame({"path": ["b.jpg", value]}, index=[0, 1]).tail(1).to_parquet(table, index=False)
        with pytest.raises(DataError, match=words):
            list_images(str(table))
    (tmp_path / "t.csv").write_text("")
    with pytest.raises(DataError, match="write the header path and one row each"):
        list_images(str(tmp_path / "t.csv"))


def test_a_table_with_a_row_that_does_not_fit_names_the_row(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("path,note\na.jpg,x\nb.jpg,y,z\n")
    with pytest.raises(DataError, match=r"list.csv row 3"):
        list_images(str(tmp_path / "list.csv"))


def test_a_name_that_is_no_utf8_is_one_image_that_cannot_be_read(served: Served, tmp_path: Path) -> None:
    workspace = tmp_path / "pictures"
    workspace.mkdir()
    Image.new("RGB", (40, 50)).save(workspace / "a.jpg")
    os.link(workspace / "a.jpg", os.fsencode(workspace) + b"/\xff.jpg")
    for name in ("out.parquet", "out.csv", "out.json"):
        done = predict(served, "capnet version 1", list_images(str(workspace)), tmp_path / name)
        assert (done.images, done.not_read) == (2, 1)
        assert done.faults == [("\\xff.jpg", "its name is no UTF-8: rename the file")]


def test_a_name_that_is_no_utf8_does_not_get_the_labels_of_the_file_that_is_called_so(
    served: Served, tmp_path: Path
) -> None:
    folder = tmp_path / "names"
    folder.mkdir()
    Image.new("RGB", (40, 50)).save(folder / r"a\xff.png")
    (folder / os.fsdecode(b"a\xff.png")).write_bytes(b"another image")
    done = predict(served, "model", list_images(str(folder)), tmp_path / "out.parquet")
    assert done.faults == [(r"a\xff.png", NO_UTF8)] * 2


def test_an_empty_cell_names_its_row(served: Served, tmp_path: Path) -> None:
    Image.new("RGB", (40, 50)).save(tmp_path / "a.jpg")
    (tmp_path / "list.csv").write_text("image,note\na.jpg,x\n,y\n,z\n")
    done = predict(served, "capnet version 1", list_images(str(tmp_path / "list.csv")), tmp_path / "out.csv")
    assert done.faults == [("", "the cell in column image is empty: list.csv row 3")]
    assert (done.images, done.not_read) == (2, 1)


def test_a_shard_and_an_image_in_it_are_asked_for_by_a_table(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "train-000000.tar", "w") as tar:
        add_member(tar, "000000000.jpg", b"x")
    for name in ("train-000000.tar", "train-000000.tar/000000000.jpg"):
        with pytest.raises(DataError, match=r"a table names the images of a shard[\s\S]*labels\.csv"):
            list_images(str(tmp_path / name))


def test_an_output_replaces_only_what_an_earlier_call_has_written(served: Served, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("path,labels\na.jpg,fox\n")
    (tmp_path / "coco.json").write_text('{"images": []}')
    pd.DataFrame({"path": ["a.jpg"]}).to_parquet(tmp_path / "list.parquet")
    (tmp_path / "folder.csv").mkdir()
    for name in ("labels.csv", "coco.json", "list.parquet", "folder.csv"):
        with pytest.raises(ConfigError, match="name another output"):
            check_out(tmp_path / name, str(folder))
    for name in ("out.parquet", "out.csv", "out.json"):
        check_out(tmp_path / name, str(folder))
        predict(served, "capnet version 1", list_images(str(folder)), tmp_path / name)
        check_out(tmp_path / name, str(folder))
    with pytest.raises(ConfigError, match="the output is the input"):
        check_out(tmp_path / "out.csv", str(tmp_path / "out.csv"))


def test_an_input_without_a_value_is_not_the_folder_one_is_in() -> None:
    with pytest.raises(ConfigError, match="no images are named"):
        list_images("")


def test_how_far_the_table_is_written_is_shown(
    served: Served, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CSV file of 2,000 classes takes seconds for every thousand images, after all of them are scored."""
    shown: list[tuple[str, int]] = []

    def track(items: Any, description: str, total: int) -> Any:
        shown.append((description, total))
        return items

    monkeypatch.setattr(prediction, "track", track)
    done = predict(served, "a model", list_images(str(folder)), tmp_path / "out.csv", images_per_part=2)
    assert shown == [("writing", -(-done.images // 2))]


def test_images_of_16_bits_that_use_fewer_are_named(
    served: Served, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = PngInfo()
    text.add_text("brightest", "of all")
    folder = tmp_path / "scans"
    folder.mkdir()
    Image.new("RGB", (40, 30), "red").save(folder / "a.png", pnginfo=text)
    (folder / "broken.png").write_bytes(b"no image")
    for name, white in (("dark", 4095), ("scaled", 65535)):
        values = np.linspace(0, white, 1200).astype("<u2").reshape(30, 40)
        Image.fromarray(values).save(folder / f"{name}.png")
    with caplog.at_level(logging.WARNING, logger="capnet"):
        done = predict(served, "m", list_images(str(folder)), tmp_path / "out.csv")
    assert (done.images, done.not_read) == (4, 1)
    (record,) = caplog.records
    assert record.getMessage().startswith("1 of 2 images of 16 bits are nearly black")
    assert "'dark.png' no value is above 4095 of 65535" in record.getMessage()
