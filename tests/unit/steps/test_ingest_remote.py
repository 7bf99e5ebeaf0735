"""The ingest stage on a remote data folder."""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from pathlib import Path

import pytest
from unit.data.sources.test_cache import Folder

from capnet.config import Data, Ingest, Params
from capnet.contracts import read_manifest
from capnet.data.sources import root as roots
from capnet.errors import DataError
from capnet.stages import run
from tests.unit.steps import ingested

data = ingested.data


def test_a_cache_that_holds_no_more_than_the_images_is_enough(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copies of label files make room for images once they are read, those of published lists among them."""
    (data / "train.txt").write_text("images/b\nimages/c\n")
    images = sum(path.stat().st_size for path in (data / "images").iterdir())
    monkeypatch.setattr(roots, "open_source", lambda settings: nullcontext(Folder(data)))
    monkeypatch.setenv("CAPNET_STATE", str(tmp_path / "state"))
    remote = Data(root="s3://bucket/x", cache_gigabytes=(images + 1) / 1e9)
    out = tmp_path / "manifest"
    params = Params(data=remote, ingest=Ingest(train_list="train.txt"))
    run("ingest", params, {"data": remote.root}, {"manifest": out})
    assert len(read_manifest(out / "manifest.parquet")) == 3
    assert (out / "train_list.txt").read_text() == "images/b\nimages/c\n"


@pytest.mark.parametrize("name", ["labels.csv", "classes.csv", "added/july.csv", "images/b.png", "notes.png"])
def test_an_object_that_changes_while_dvc_runs_the_stage_is_not_taken_for_read(
    name: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DVC records the list of objects as it is when the stage ends; an object that no row names is none of ours."""
    remote = tmp_path / "remote"
    shutil.copytree(data, remote)

    def read(path: Path) -> bytes:
        (remote / name).parent.mkdir(exist_ok=True)
        (remote / name).write_text("path,labels\nimages/a.jpg,dog\n")
        return path.read_bytes()

    monkeypatch.setattr("capnet.data.images.image_files.read_bytes", read)
    monkeypatch.setattr(roots, "open_source", lambda settings: nullcontext(Folder(remote)))
    monkeypatch.setenv("CAPNET_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("DVC_STAGE", "ingest")
    root, out = "s3://bucket/x", tmp_path / "manifest"
    refusal = pytest.raises(DataError, match=f"changed while stage ingest ran\n  where: {root}/{name}\n")
    with nullcontext() if name == "notes.png" else refusal:
        run("ingest", Params(data=Data(root=root)), {"data": root}, {"manifest": out})
    assert out.exists() == (name == "notes.png")
