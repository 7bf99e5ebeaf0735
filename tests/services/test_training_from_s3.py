"""The demo in small, trained from s3://: equal to the bit to training from a folder, and a training pod fetches its
rows only.
"""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path

import pytest
import yaml
from e2e.workspace import Workspace, merge
from services.s3_server import S3Server
from services.test_s3_root import tree

from capnet.commands.preset import read, render
from capnet.config import load, parse
from capnet.contracts import read_split
from capnet.data.demo.image_set import class_rows, total, write_images
from capnet.stages import STAGES, run

SMALL = {
    "split": {"method": "natural", "require_positives": {"train": 0}},
    "train": {"epochs": 1, "batch_size": 32, "views": 1},
    "evaluate": {"bootstrap": 100},
}


def run_stages(workspace: Workspace, *names: str, **outputs: str) -> None:
    """Stages in this process, which spares each the import of torch; ``outputs`` go elsewhere."""
    params = load(workspace.root / "params.yaml")
    for name in names:
        stage = STAGES[name]
        inputs = {
            key: params.data.root if key == "data" else workspace.root / path for key, path in stage.inputs.items()
        }
        run(name, params, inputs, {key: workspace.root / outputs.get(key, path) for key, path in stage.outputs.items()})


@pytest.fixture
def workspace(s3: S3Server, bucket: str, tmp_path: Path) -> Workspace:
    """Every 40th picture of the demo, in a folder and in a bucket; the settings name the bucket."""
    data = tmp_path / "data"
    (data / "images").mkdir(parents=True)
    rows = write_images(data, 0, range(0, total(), 40))
    for name, table in (
        ("labels.csv", [["path", "labels", "split", "slice"], *rows]),
        ("classes.csv", [["name", "prompt_name", "critical"], *class_rows()]),
    ):
        with open(data / name, "w", newline="") as file:
            csv.writer(file).writerows(table)
    client = s3.client()
    for path in data.rglob("*.*"):
        client.upload_file(str(path), bucket, f"demo/{path.relative_to(data).as_posix()}")
    demo = read("demo").model_dump(mode="json", by_alias=True)
    settings = merge(merge(demo, SMALL), {"data": {"root": f"s3://{bucket}/demo"}})
    (tmp_path / "params.yaml").write_text(render(parse(settings), "the demo in small"))
    return Workspace(tmp_path)


def test_stages_read_from_s3_what_they_would_read_from_a_folder(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace.capnet("ingest")
    copies = workspace.root / ".capnet" / "remote" / "s3"
    workspace.capnet("ingest", "--set", "data.root=data", "--output", "manifest=outputs/from-folder")
    assert tree(workspace.root / "outputs" / "from-folder") == tree(workspace.root / "outputs" / "manifest")
    assert {path.name for path in copies.rglob("*.jpg")} == {
        path.name for path in (workspace.root / "data" / "images").iterdir()
    }

    workspace.capnet("shard", "--out", "shards")
    workspace.capnet("shard", "--out", "shards-from-folder", "--set", "data.root=data")
    assert tree(workspace.root / "shards") == tree(workspace.root / "shards-from-folder")

    workspace.capnet("split")
    split = read_split(workspace.root / "outputs" / "split" / "split.parquet")
    train, test = (set(split[split["split"].isin(splits)]["path"]) for splits in (("train", "val"), ("test",)))
    monkeypatch.setenv("CAPNET_STATE", str(workspace.root / "pod"))  # another machine: nothing is there yet
    pod = workspace.root / "pod" / "remote"
    run_stages(workspace, "validate", "graph")
    shutil.rmtree(pod)
    run_stages(workspace, "train")
    assert {f"images/{path.name}" for path in pod.rglob("*.jpg")} == train, "test pictures are no business of training"
    run_stages(workspace, "evaluate")
    assert {f"images/{path.name}" for path in pod.rglob("*.jpg")} == train | test

    settings = (workspace.root / "params.yaml").read_text()
    (workspace.root / "params.yaml").write_text(re.sub("root: s3://.*", f"root: {workspace.root}/data", settings))
    monkeypatch.setenv("CAPNET_STATE", str(workspace.root / "folder"))
    run_stages(workspace, "train", model="outputs/from-folder")
    assert tree(workspace.root / "outputs" / "from-folder") == tree(workspace.root / "outputs" / "model")


def test_dvc_notices_a_change_in_the_bucket(workspace: Workspace, s3: S3Server, bucket: str, repository: Path) -> None:
    content = yaml.safe_load((repository / "dvc.yaml").read_text())
    content["stages"] = {name: content["stages"][name] for name in ("ingest", "split")}
    for stage in content["stages"].values():
        stage["deps"] = [item for item in stage["deps"] if not item.startswith("capnet/")]
    (workspace.root / "dvc.yaml").write_text(yaml.safe_dump({"stages": content["stages"]}, sort_keys=False))
    shutil.copytree(repository / "reference", workspace.root / "reference")
    for command in ("git init -q", "dvc init -q", "dvc repro"):
        result = workspace.run(*command.split())
        assert result.returncode == 0, result.stdout + result.stderr
    assert "up to date" in workspace.run("dvc", "status").stdout
    labels = (workspace.root / "data" / "labels.csv").read_text().splitlines(keepends=True)
    s3.client().put_object(Bucket=bucket, Key="demo/labels.csv", Body="".join(labels[:-1]).encode())
    again = workspace.run("dvc", "repro")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "Running stage 'ingest'" in again.stdout
    assert len(read_split(workspace.root / "outputs" / "split" / "split.parquet")) == len(labels) - 2
