"""The gate on real photos: it passes as they are, and of three tampered pictures it names exactly those."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from e2e.workspace import Workspace, merge

from capnet.commands.preset import read, render
from capnet.config import parse
from capnet.contracts import read_split, write_split

CRITICAL = {"runtime": {"threads": 1}, "validate": {"near_duplicates": "critical", "images": "full"}}


@pytest.fixture
def photos(shared: Path, tmp_path: Path) -> Workspace:
    """310 photos as a folder of one's own, after split; near-duplicates are critical, every byte is looked at."""
    workspace = Workspace(tmp_path)
    data, source = workspace.root / "data", shared / "data" / "coco_mini"
    data.mkdir()
    for folder in ("train2017", "val2017"):
        shutil.copytree(source / folder, data / folder)
    with open(source / "class_counts.csv", newline="") as file:
        names = [row["name"] for row in csv.DictReader(file)]
    (data / "classes.csv").write_text("\n".join(["name", *names]) + "\n")
    with open(source / "images.csv", newline="") as file:
        workspace.labels(
            [
                {
                    "path": f"{row['split']}/{row['image']}.jpg",
                    "labels": "|".join(names[int(label)] for label in row["labels"].split()),
                    "split": {"train2017": "train", "val2017": "test"}[row["split"]],
                }
                for row in csv.DictReader(file)
            ]
        )
    preset = read("coco-mini").model_dump(mode="json", by_alias=True)
    (workspace.root / "params.yaml").write_text(render(parse(merge(preset, CRITICAL)), "preset coco-mini, strict"))
    return workspace


def test_the_gate_passes_as_they_are(photos: Workspace) -> None:
    photos.stages(last="split")
    result = photos.run("capnet", "validate")
    assert result.returncode == 0, result.stderr
    content = json.loads((photos.root / "outputs/validation/validation.json").read_text())
    failed = {check["name"] for check in content["checks"] if not check["success"]}
    assert failed == {"enough_positives"}, "a few hundred photos of eighty classes are few, and nothing else is wrong"


def test_three_tampered_pictures_are_named_and_no_other(photos: Workspace) -> None:
    with open(photos.root / "data/labels.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    train = [row for row in rows if row["split"] == "train"]
    twin = "val2017/copy of a training photo.jpg"
    shutil.copy(photos.root / "data" / train[5]["path"], photos.root / "data" / twin)
    photos.labels([*rows, {**train[5], "path": twin, "split": "test"}])
    photos.stages(last="split")
    path = photos.root / "outputs/split/split.parquet"
    frame = read_split(path)
    row = frame.index[frame["path"] == train[40]["path"]][0]
    frame.at[row, "labels"] = [*frame.at[row, "labels"][:-1], 80]
    write_split(path, frame)
    (photos.root / "data" / train[90]["path"]).unlink()

    result = photos.run("capnet", "validate")
    assert result.returncode == 5
    assert "Traceback" not in result.stderr
    content = json.loads((photos.root / "outputs/validation/validation.json").read_text())
    actual = {
        check["name"]: {item["path"] for item in check["offending"]}
        for check in content["checks"]
        if not check["success"] and check["severity"] == "critical"
    }
    assert actual == {
        "labels_in_classes": {train[40]["path"]},
        "pictures_in_one_split": {train[5]["path"], twin},
        "pictures_present": {train[90]["path"]},
    }
    for name in (train[40]["path"], train[5]["path"], twin, train[90]["path"]):
        assert name in result.stderr
    others = {item["path"] for item in rows} - {train[n]["path"] for n in (5, 40, 90)}
    assert not any(name in result.stderr for name in others)
