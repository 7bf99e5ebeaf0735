"""A model registered with its backbone: one that loads where weight file, model name and network are not, with the same
scores.
"""

from __future__ import annotations

import json
import os
import pickletools
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from mlflow.tracking import MlflowClient
from PIL import Image
from safetensors import safe_open

from capnet.config import Register, Runtime
from capnet.contracts import read_tensors, sha256_file, write_tensors
from capnet.errors import ContractError, DataError
from capnet.evaluation.tte import Scorer
from capnet.model.folder import load_model, pack
from capnet.model.packed import PACKED_FILE
from capnet.model.towers import tensors_digest
from capnet.promotion.copies import copy
from capnet.registry.candidate import read_candidate
from capnet.registry.register import find_version, register_version, registered
from capnet.runtime import prepare
from capnet.tracking.store import local_path

pytestmark = pytest.mark.slow

Make = Callable[..., dict[str, Path]]
PACKED = Register(pack_backbone=True)
ELSEWHERE = """
import json, socket, sys
def refuse(*arguments, **more):
    raise OSError("no network here")
socket.socket.connect = socket.create_connection = refuse
import mlflow.pyfunc, pandas as pd
model = mlflow.pyfunc.load_model(sys.argv[1])
print(json.dumps(model.predict(pd.DataFrame({"image": sys.argv[2:]}))["score"].tolist()))
"""


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    random = np.random.default_rng(0)
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path in paths:
        Image.fromarray(random.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(path)
    return paths


def test_a_packed_version_loads_without_its_weight_file_and_without_a_network(
    database: Path, make_outputs: Make, pictures: list[Path], tmp_path: Path
) -> None:
    weights = tmp_path / "clip.pt"
    paths = make_outputs(
        weighted={"capnet": 0.4, "class_head": 0.3, "linear_probe": 0.2, "zero_shot": 0.1}, weights=weights
    )
    rows = pd.DataFrame({"path": [str(path) for path in pictures], "sha256": [sha256_file(path) for path in pictures]})
    expected = Scorer(paths["model"], Runtime()).score(rows, Path("/"), "test").scores["capnet"]
    candidate = read_candidate(**paths)
    version = register_version(PACKED, candidate, paths["evaluation"] / "report.html")
    assert version.tags["backbone"] == "packed"
    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    workspace = local_path(client.get_model_version_download_uri("capnet", "1"))
    assert workspace is not None
    weights.unlink()
    with pytest.raises(DataError, match=r"clip\.pt is missing"):
        load_model(paths["model"], prepare(Runtime()))

    # another process knows neither the model's name nor its architecture, as on a machine that only got the folder
    copied = shutil.copytree(workspace, tmp_path / "elsewhere" / "model")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW")} | {
        "CAPNET_STATE": str(tmp_path / "other state"),
        "CAPNET_SERVE_ROOT": str(tmp_path),
    }
    command = [sys.executable, "-c", ELSEWHERE, str(copied), *map(str, pictures)]
    done = subprocess.run(command, cwd=copied.parent, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(json.loads(done.stdout.splitlines()[-1]), expected.ravel(), atol=1e-5)

    files = {path: path.stat().st_size for path in workspace.rglob("*") if path.is_file()}
    assert not [path for path in files if _pickled(path)]
    with safe_open(workspace / "artifacts/model" / PACKED_FILE, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    assert {name.partition(".")[0] for name in tensors} == {"image", "classes"}
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    rest = sum(size for path, size in files.items() if path.name != PACKED_FILE)
    trained = sum(
        path.stat().st_size for path in (paths["model"] / name for name in ("model.safetensors", "graph.safetensors"))
    )
    assert files[workspace / "artifacts/model" / PACKED_FILE] < size + 20_000, "the tensors and their names"
    assert rest < trained + 60_000, "beside the backbone: trained tensors, graph, and texts"


def _pickled(path: Path) -> bool:
    """A pickle, or an archive that may hold one, as torch.save writes."""
    if zipfile.is_zipfile(path):
        return True
    try:
        return sum(1 for _ in pickletools.genops(path.read_bytes())) > 0
    except Exception:
        return False


def test_the_walk_finds_what_torch_saves(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(2)}, tmp_path / "new")
    torch.save({"a": torch.zeros(2)}, tmp_path / "old", _use_new_zipfile_serialization=False)
    assert _pickled(tmp_path / "new")
    assert _pickled(tmp_path / "old")


def test_a_store_without_the_packed_form_lacks_the_version(database: Path, make_outputs: Make) -> None:
    paths = make_outputs()
    candidate, report = read_candidate(**paths), paths["evaluation"] / "report.html"
    record = paths["model"].parent / "registration.json"
    record.write_text(
        json.dumps({"schema": 1, "name": "capnet", "alias": "challenger", "content_hash": candidate.content_hash})
    )
    assert str(register_version(Register(), candidate, report).version) == "1"
    assert registered(Register(), record, paths["model"], paths["evaluation"])
    assert not registered(PACKED, record, paths["model"], paths["evaluation"])
    first, second = (register_version(PACKED, candidate, report) for _ in range(2))
    assert (str(first.version), str(second.version), first.tags["content_hash"]) == ("2", "2", candidate.content_hash)
    assert registered(PACKED, record, paths["model"], paths["evaluation"])
    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    version = find_version(client, Register(), candidate.content_hash)
    assert version is not None
    assert str(version.version) == "1", "who asks for no packed one is content with either"
    for number in ("1", "2", "2"):
        copied = copy(client, client.get_model_version("capnet", number), "production")
        assert copied.tags["backbone"] == client.get_model_version("capnet", number).tags["backbone"]
    assert len(client.search_model_versions("name = 'production'")) == 2


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("bytes", "sha256 is not the one"),
        ("trained", "packed for other trained tensors"),
        ("weights", "backbone's weights differ"),
    ],
)
def test_a_changed_backbone_is_refused(
    make_outputs: Make, change: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPNET_STATE", str(tmp_path / "state"))
    folder = make_outputs()["model"]
    machine = prepare(Runtime())
    pack(folder, machine)
    load_model(folder, machine)
    tensors, metadata = read_tensors(folder / PACKED_FILE)
    name = next(iter(tensors))
    if change == "bytes":
        content = bytearray((folder / PACKED_FILE).read_bytes())
        content[-5] ^= 1
        (folder / PACKED_FILE).write_bytes(content)
    elif change == "trained":
        trained, fingerprints = read_tensors(folder / "model.safetensors")
        write_tensors(folder / "model.safetensors", {key: tensor + 1 for key, tensor in trained.items()}, fingerprints)
    else:
        tensors[name] = tensors[name] + 1
        write_tensors(
            folder / PACKED_FILE,
            tensors,
            metadata | {"tensors_sha256": tensors_digest(tensors), "weight_hash": "0" * 64},
        )
    with pytest.raises(ContractError, match=reason):
        load_model(folder, machine)


def test_a_packed_model_has_no_text_tower(make_outputs: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPNET_STATE", str(tmp_path / "state"))
    folder = make_outputs()["model"]
    machine = prepare(Runtime())
    whole = load_model(folder, machine).model
    pack(folder, machine)
    model: Any = load_model(folder, machine).model
    with torch.no_grad():
        for name in ("refined", "zero_shot"):
            assert torch.equal(getattr(model.class_features(), name), getattr(whole.class_features(), name))
    with pytest.raises(ContractError, match="no text tower"):
        model.towers.text(["a cat"])
