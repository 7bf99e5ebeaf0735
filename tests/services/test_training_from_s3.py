"""The demo in small, trained from s3://: equal to the bit to training from a folder, and a training pod fetches its rows only."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import yaml
from e2e.workplace import Workplace, merge
from services.s3_server import S3Server
from services.test_s3_root import tree

from capnet.commands.preset import read, render
from capnet.config import parse
from capnet.contracts import read_split, tree_hash
from capnet.data.scene_set import class_rows, total, write_pictures

SMALL = {
    "split": {"method": "natural", "require_positives": {"train": 0}},
    "train": {"epochs": 1, "batch_size": 32, "views": 1},
    "evaluate": {"bootstrap": 100},
}


class ElsewhereState(Workplace):
    """The same folder seen from another machine: its state folder is empty."""

    def environment(self) -> dict[str, str]:
        return super().environment() | {"CAPNET_STATE": str(self.root / "pod-state")}


@pytest.fixture
def place(s3: S3Server, bucket: str, tmp_path: Path) -> Workplace:
    """Every 40th picture of the demo, in a folder and in a bucket; the settings name the bucket."""
    data = tmp_path / "data"
    (data / "images").mkdir(parents=True)
    rows = write_pictures(data, 0, range(0, total(), 40))
    for name, table in (("labels.csv", [["path", "labels", "split", "slice"], *rows]), ("classes.csv", [["name", "prompt_name", "critical"], *class_rows()])):
        with open(data / name, "w", newline="") as file:
            csv.writer(file).writerows(table)
    client = s3.client()
    for path in data.rglob("*.*"):
        client.upload_file(str(path), bucket, f"demo/{path.relative_to(data).as_posix()}")
    demo = read("demo").model_dump(mode="json", by_alias=True)
    settings = merge(merge(demo, SMALL), {"data": {"root": f"s3://{bucket}/demo"}})
    (tmp_path / "params.yaml").write_text(render(parse(settings), "the demo in small"))
    return Workplace(tmp_path)


def test_stages_read_from_s3_what_they_would_read_from_a_folder(place: Workplace) -> None:
    place.stages(last="evaluate")
    split = read_split(place.root / "outputs" / "split" / "split.parquet")
    copies = place.root / ".capnet" / "remote" / "s3"
    assert {path.name for path in copies.rglob("*.jpg")} == {Path(path).name for path in split["path"]}

    place.capnet("ingest", "--set", "data.root=data", "--output", "manifest=outputs/from-folder")
    assert tree(place.root / "outputs" / "from-folder") == tree(place.root / "outputs" / "manifest")

    pod = ElsewhereState(place.root)
    pod.capnet("train", "--output", "model=outputs/from-pod")
    assert tree_hash(place.root / "outputs" / "from-pod") == tree_hash(place.root / "outputs" / "model")
    fetched = {path.name for path in (place.root / "pod-state" / "remote").rglob("*.jpg")}
    assert fetched == {Path(path).name for path in split[split["split"] != "test"]["path"]}, "test pictures are no business of training"


def test_dvc_notices_a_change_in_the_bucket(place: Workplace, s3: S3Server, bucket: str, repository: Path) -> None:
    content = yaml.safe_load((repository / "dvc.yaml").read_text())
    content["stages"] = {name: content["stages"][name] for name in ("ingest", "split")}
    for stage in content["stages"].values():
        stage["deps"] = [item for item in stage["deps"] if not item.startswith("capnet/")]
    (place.root / "dvc.yaml").write_text(yaml.safe_dump({"stages": content["stages"]}, sort_keys=False))
    for command in ("git init -q", "dvc init -q", "dvc repro"):
        result = place.run(*command.split())
        assert result.returncode == 0, result.stdout + result.stderr
    assert "up to date" in place.run("dvc", "status").stdout
    labels = (place.root / "data" / "labels.csv").read_text().splitlines(keepends=True)
    s3.client().put_object(Bucket=bucket, Key="demo/labels.csv", Body="".join(labels[:-1]).encode())
    again = place.run("dvc", "repro")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "Running stage 'ingest'" in again.stdout
    assert len(read_split(place.root / "outputs" / "split" / "split.parquet")) == len(labels) - 2
