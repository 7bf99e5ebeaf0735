"""The ingest stage on a remote data folder."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
from unit.data.sources.test_cache import Folder

from capnet.config import Data, Ingest, Params
from capnet.contracts import read_manifest
from capnet.data.sources import root as roots
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
