"""Two real processes, joined by gloo on loopback as torchrun joins them, train what one process trains."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import socket
from collections.abc import Iterable
from itertools import count
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from capnet.config import parse
from capnet.contracts import label_matrix, make_classes, read_tensors, write_classes, write_split
from capnet.data.images.store import FeatureStore
from capnet.errors import ConfigError
from capnet.stages import STAGES, run
from capnet.training import checkpoint, trainer
from capnet.training.distributed import ProcessGroup, process_group
from tests.unit.model import tiny

pytestmark = pytest.mark.slow

NAMES = ["red square", "green square", "blue square"]
COLOURS = [(220, 30, 30), (30, 200, 40), (40, 60, 220)]
SETTINGS = {
    "backbone": {"name": "tiny-clip", "pretrained": "random"},
    "tte": {"expand": 8},
    "runtime": {"threads": 1, "precision": "fp32", "device": "cpu"},
    "train": {
        "epochs": 3,
        "batch_size": 7,
        "select": "val_map",
        "loss": {"name": "db_focal_lmpt"},
        "class_head": {"enabled": True},
        "blend": "held_out",
        "refit": True,
    },
}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """33 pictures, of which 21 are for training, so that shares are unequal; settings for a small ViT with adapters in
    its blocks.
    """
    folder = tmp_path_factory.mktemp("two")
    rng = np.random.default_rng(0)
    rows = []
    (folder / "data").mkdir()
    for number in range(33):
        labels = np.flatnonzero(rng.random(3) < 0.5)
        pixels = np.full((48, 60, 3), 128, dtype=np.uint8)
        pixels[0, 0] = number  # no two are equal
        for c in labels:
            x, y = rng.integers(0, 30), rng.integers(0, 20)
            pixels[y : y + 24, x : x + 24] = COLOURS[c]
        path = folder / "data" / f"{number}.png"
        Image.fromarray(pixels).save(path)
        row = {
            "image_id": str(number),
            "path": path.name,
            "labels": labels,
            "unknown": [],
            "width": 60,
            "height": 48,
            "group": None,
            "slice": None,
        }
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        rows.append(
            row
            | {
                "sha256": sha256,
                "given_split": None,
                "split": "train" if number < 21 else "val" if number < 27 else "test",
            }
        )
    frame = pd.DataFrame(rows)
    outputs = folder / "outputs"
    for name in ("split", "validation"):
        (outputs / name).mkdir(parents=True)
    counts = label_matrix(frame["labels"], 3)[:21].sum(axis=0).tolist()
    write_classes(outputs / "split" / "classes.json", make_classes(NAMES).with_counts(counts, (10, 5)))
    write_split(outputs / "split" / "split.parquet", frame)
    together(1, folder, "graph")
    together(1, folder, "train")
    (outputs / "model").rename(folder / "one")
    return folder


def work(rank: int, size: int, port: int, folder: Path, stage: str, stop: int, state: str) -> None:
    """What one process does, with the variables that torchrun sets."""
    os.environ |= {"CAPNET_STATE": str(folder / state.format(rank=rank)), "OMP_NUM_THREADS": "1"}
    if size > 1:
        os.environ |= {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(size),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
    os.chdir(folder)
    tiny.register("tiny-clip", folder / f"configs{rank}")
    checkpoint.SAVE_EVERY_SECONDS = 0.0
    if stop:
        steps, loss = count(1), trainer.multilabel_loss
        trainer.multilabel_loss = lambda *arguments: os._exit(9) if next(steps) == stop else loss(*arguments)
    fill, computed = FeatureStore.fill, folder / f"computed {rank} {state}"

    def noted_fill(store: FeatureStore, hashes: list[str], features: Iterable[np.ndarray]) -> None:
        with computed.open("a") as file:
            file.writelines(f"{name}\n" for name in hashes)
        fill(store, hashes, features)

    FeatureStore.fill = noted_fill
    described = STAGES[stage]
    run(
        stage,
        parse(SETTINGS),
        {name: "data" if name == "data" else path for name, path in described.inputs.items()},
        described.outputs,
    )


def together(size: int, folder: Path, stage: str, stop: int = 0, state: str = "state") -> None:
    """Run a stage in forked processes, which have every library loaded already; ``state`` names the state folder, with
    a process's {rank} where each has its own.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    processes = [
        context.Process(target=work, args=(rank, size, port, folder, stage, stop, state)) for rank in range(size)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [9 if stop else 0] * size


def same_as_one(folder: Path) -> None:
    result, expected = (
        read_tensors(path / "model.safetensors")[0] for path in (folder / "outputs" / "model", folder / "one")
    )
    assert result.keys() == expected.keys()
    assert any(name.startswith("block_adapters.") for name in result)
    for name, tensor in expected.items():
        torch.testing.assert_close(result[name], tensor, rtol=1e-4, atol=1e-5, msg=name)
    histories = [pd.read_csv(path / "history.csv") for path in (folder / "outputs" / "model", folder / "one")]
    np.testing.assert_allclose(histories[0], histories[1], atol=1e-5)
    assert sorted(path.name for path in (folder / "outputs" / "model").iterdir()) == sorted(
        path.name for path in (folder / "one").iterdir()
    )
    assert not list((folder / "outputs").glob(".*"))
    assert not list((folder / "state" / "train").iterdir())


def test_two_processes_give_what_one_gives_and_one_of_them_writes(workspace: Path) -> None:
    together(2, workspace, "train")
    same_as_one(workspace)


def test_two_processes_go_on_where_two_stopped(workspace: Path) -> None:
    together(2, workspace, "train", stop=5)
    assert list((workspace / "state" / "train").rglob("checkpoint.safetensors"))
    together(2, workspace, "train")
    same_as_one(workspace)


@pytest.mark.parametrize(("state", "by_each"), [("new", [14, 13]), ("new{rank}", [27, 27])])
def test_processes_share_the_work_of_computing_features(workspace: Path, state: str, by_each: list[int]) -> None:
    """21 training and 6 validation pictures; where each process has a state folder of its own it needs all."""
    together(2, workspace, "train", state=state)
    computed = [(workspace / f"computed {rank} {state}").read_text().split() for rank in range(2)]
    assert [len(hashes) for hashes in computed] == by_each
    assert len(set(computed[0]) | set(computed[1])) == 27
    same_as_one(workspace)


def test_a_group_of_one_changes_nothing() -> None:
    group, weight = ProcessGroup(), torch.ones(3, requires_grad=True)
    rows = np.array([2, 0, 1])
    features = group.gather_features(rows, lambda share: weight[torch.from_numpy(share)][:, None])
    features.sum().backward()
    group.sum_gradients({"adapter.weight": weight})
    assert torch.equal(weight.grad, torch.ones(3))
    assert group.broadcast({"x": 1}) == {"x": 1}
    group.wait()


def test_more_processes_than_images_in_a_batch_are_refused() -> None:
    with pytest.raises(ConfigError, match="a batch of 2 images for 3 processes"):
        ProcessGroup(0, 3).gather_features(np.arange(2), lambda share: torch.zeros(len(share), 4))


@pytest.mark.parametrize(("port", "what"), [(None, "MASTER_PORT"), ("abc", "'abc'")])
def test_processes_that_cannot_meet_say_so(port: str | None, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"} | ({"MASTER_PORT": port} if port else {})
    monkeypatch.delenv("MASTER_PORT", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=f"the processes cannot meet: .*{what}"), process_group(torch.device("cpu")):
        pass
