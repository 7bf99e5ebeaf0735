"""What a TrainJob runs, really run: two torchrun processes with the variables that Kubeflow Trainer sets, told apart
only by their rank.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import open_clip
import pandas as pd
import pytest
import torch
from contract.kubernetes_server import serving
from contract.trainer_server import ACCOUNT, SPACE, Moment, Trainer, condition, pod
from PIL import Image
from safetensors.torch import save_file

from capnet.cluster import trainjob_wait as follow
from capnet.cluster import trainjobs as jobs
from capnet.config import parse
from capnet.contracts import make_classes, read_tensors, write_classes, write_json, write_split
from capnet.data.sources.source import write_source
from capnet.stages import run
from components.train_nodes.component import train_nodes

pytestmark = pytest.mark.slow

VIT = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
SECTIONS: dict[str, Any] = {
    "tte": {"expand": 8},
    "runtime": {"threads": 1, "precision": "fp32", "device": "cpu", "seed": 0},
    "train": {"epochs": 2, "batch_size": 7, "views": 1},
}


@dataclass
class Machines:
    """As many machines as the TrainJob asks for, on loopback: each runs its command once, with its environment and no
    other.
    """

    folder: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def play(self, job: dict[str, Any], poll: int) -> Moment:
        if not self.processes:
            self.start(job)
        codes = [process.poll() for process in self.processes]
        phases = ["Running" if code is None else "Failed" if code else "Succeeded" for code in codes]
        pods = [
            pod(
                job["metadata"]["name"],
                node,
                phase,
                **({"terminated": {"exitCode": code, "reason": "Error"}} if code else {}),
            )
            for node, (phase, code) in enumerate(zip(phases, codes, strict=True))
        ]
        return condition("Failed") if "Failed" in phases else condition("Complete") if set(phases) == {
            "Succeeded"
        } else {}, pods

    def start(self, job: dict[str, Any]) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        trainer = job["spec"]["trainer"]
        variables = {item["name"]: item["value"] for item in trainer["env"] if "value" in item}
        for node in range(trainer["numNodes"]):
            environment = {
                "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
                "CUDA_VISIBLE_DEVICES": "",
                "HOME": str(self.folder),
                **variables,
            }
            environment |= {
                "PET_NNODES": str(trainer["numNodes"]),
                "PET_NPROC_PER_NODE": str(trainer["numProcPerNode"]),
                "PET_NODE_RANK": str(node),
            }
            environment |= {"PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": str(port)}
            with open(self.folder / f"node{node}.log", "wb") as log:
                self.processes.append(
                    subprocess.Popen(trainer["command"], env=environment, stdout=log, stderr=log, cwd=self.folder)
                )

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


def write_backbone(folder: Path) -> None:
    """A ViT with random weights, which other processes load from its folder."""
    config = {"embed_dim": 24, "vision_cfg": VIT, "text_cfg": TEXT}
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    torch.manual_seed(0)
    save_file(open_clip.CLIP(**config).state_dict(), folder / "open_clip_model.safetensors")


def sections(small: Path) -> dict[str, Any]:
    return {**SECTIONS, "backbone": {"name": "tiny", "pretrained": f"local-dir:{small / 'backbone'}"}}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small set with its split and graph, and a model trained by one process."""
    folder = tmp_path_factory.mktemp("small")
    rng = np.random.default_rng(0)
    rows = []
    (folder / "pictures").mkdir()
    for number in range(20):
        labels = np.flatnonzero(rng.random(3) < 0.5)
        path = folder / "pictures" / f"{number}.png"
        Image.fromarray(rng.integers(0, 255, (48, 60, 3), dtype=np.uint8)).save(path)
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
                "split": "train" if number < 11 else "val" if number < 16 else "test",
            }
        )
    for name in ("split", "validation"):
        (folder / name).mkdir()
    write_classes(
        folder / "split" / "classes.json", make_classes(["cat", "dog", "bird"]).with_counts([5, 5, 5], (10, 3))
    )
    write_split(folder / "split" / "split.parquet", pd.DataFrame(rows))
    write_json(folder / "validation" / "validation.json", {})
    write_backbone(folder / "backbone")
    described, inputs = parse(sections(folder)), {name: folder / name for name in ("split", "validation")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAPNET_STATE", str(folder / "state"))
        run("graph", described, inputs, {"graph": folder / "graph"})
        run(
            "train",
            described,
            {**inputs, "graph": folder / "graph", "data": folder / "pictures"},
            {"model": folder / "one"},
        )
    write_source(described.data.model_copy(update={"root": str(folder / "pictures")}), folder / "data", "/")
    return folder


@pytest.fixture
def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Machines, Trainer]]:
    """A cluster with as many machines as are asked for."""
    monkeypatch.setenv("CAPNET_STATE", str(tmp_path / "state"))
    machines = Machines(tmp_path)
    cluster = Trainer(play=machines.play)
    rights = [
        {
            "apiGroups": ["trainer.kubeflow.org", ""],
            "resources": ["trainjobs", "pods", "pods/log"],
            "verbs": ["create", "get", "list", "delete"],
        }
    ]
    cluster.apply(SPACE, {"kind": "Role", "metadata": {"name": "all"}, "rules": rights})
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr(follow, "EVERY", 0.2)
    monkeypatch.setattr(jobs, "AGAIN", 0.02)
    with serving(cluster, tmp_path) as path:
        for name, value in {
            "KUBECONFIG": str(path),
            "CAPNET_NAMESPACE": SPACE,
            "CAPNET_POD": "p",
            "CAPNET_POD_UID": "1",
            "CAPNET_ACCOUNT": ACCOUNT,
        }.items():
            monkeypatch.setenv(name, value)
        try:
            yield machines, cluster
        finally:
            machines.stop()


def component(small: Path, folder: Path, **changes: Any) -> dict[str, float]:
    """The component as KFP calls it."""
    arguments: dict[str, Any] = {
        name: SimpleNamespace(path=str(small / name)) for name in ("split", "validation", "graph", "data")
    }
    metrics: dict[str, float] = {}
    options: dict[str, Any] = {
        "nodes": 2,
        "processes_per_node": 0,
        "image": "capnet-train@sha256:0",
        "runtime": "torch-distributed",
    }
    options |= {
        "accelerator_type": "nvidia.com/gpu",
        "accelerator_count": 0,
        "cpu": "1",
        "memory": "2Gi",
        "shared_memory": "1Gi",
    }
    options |= {
        "node_selector": {},
        "tolerations": [],
        "hours": 1.0,
        "start_minutes": 1.0,
        "data_claim": "",
        "pull_secret": "",
        "state_claim": "capnet-state",
    }
    options |= {name: name.replace("_", "-") for name in ("s3_secret", "mlflow_secret", "git_secret")} | changes
    out = SimpleNamespace(path=str(folder / "out" / "model"))
    log = SimpleNamespace(log_metric=metrics.__setitem__)
    train_nodes.python_func(**arguments, params=sections(small), seed=0, **options, model=out, metrics=log)
    return metrics


def logs(folder: Path) -> str:
    return "".join(path.read_text() for path in sorted(folder.glob("node*.log")))


def test_two_nodes_train_the_model_of_one_process(small: Path, nodes: tuple[Machines, Trainer]) -> None:
    machines, cluster = nodes
    folder = machines.folder
    metrics = component(small, folder)
    assert [process.returncode for process in machines.processes] == [0, 0], logs(folder)
    result, expected = (
        read_tensors(path / "model.safetensors")[0] for path in (folder / "out" / "model", small / "one")
    )
    assert result.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(result[name], tensor, rtol=1e-4, atol=1e-5, msg=name)
    assert sorted(path.name for path in (folder / "out" / "model").iterdir()) == sorted(
        path.name for path in (small / "one").iterdir()
    )
    histories = [pd.read_csv(path / "history.csv") for path in (folder / "out" / "model", small / "one")]
    np.testing.assert_allclose(histories[0], histories[1], atol=1e-5)
    assert metrics["loss"] == pytest.approx(histories[0]["loss"].iloc[-1], abs=1e-6)
    assert set(metrics) == {"epoch", "loss", "val_mAP"}
    assert [os.listdir(folder / "state" / name) for name in ("nodes", "train")] == [[], []]
    assert len(cluster.removed) == 1


def test_what_a_node_raises_ends_the_task_with_the_same_words_and_exit_code(
    small: Path, nodes: tuple[Machines, Trainer], caplog: pytest.LogCaptureFixture
) -> None:
    machines, cluster = nodes
    folder = machines.folder
    with pytest.raises(SystemExit) as caught:
        component(small, folder, accelerator_count=1)
    assert caught.value.code == 2, logs(folder)
    assert "settings error, exit code 2\nthe task asked for 1 GPU and sees 0" in caplog.text
    assert f"TrainJob {cluster.removed[0]}" in caplog.text
    assert os.listdir(folder / "state" / "nodes") == []
