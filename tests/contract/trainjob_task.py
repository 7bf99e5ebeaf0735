"""A task in a pod of a cluster with Kubeflow Trainer, and how a TrainJob may go."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from contract.kubernetes_server import serving
from contract.trainer_server import ACCOUNT, JOBS, SPACE, Trainer, condition, pod

from capnet.cluster import names
from capnet.cluster import trainjob_wait as follow
from capnet.cluster import trainjobs as jobs
from capnet.cluster.trainjob_run import train_on_nodes
from capnet.config import parse
from capnet.contracts import write_json

IMAGE = "registry.example.com/capnet-train@sha256:" + "a" * 64
NODES: dict[str, Any] = {"nodes": 2, "image": IMAGE}
PARAMS = parse({"runtime": {"seed": 3, "threads": 2}, "train": {"batch_size": 64}})
METRICS = {"epoch": 2.0, "loss": 0.25, "val_mAP": 0.5}
RUNNING = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
FULL = [
    {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
    }
]


def finish(job: dict[str, Any]) -> None:
    """What the nodes leave on the volume."""
    folder = Path(job["spec"]["trainer"]["command"][-1])
    (folder / "model").mkdir(exist_ok=True)
    (folder / "model" / "config.json").write_text("{}")
    write_json(folder / "metrics.json", METRICS)


def good(job: dict[str, Any], poll: int) -> Any:
    """A TrainJob whose pods wait, start one after the other, and end well."""
    name = job["metadata"]["name"]
    moments = [
        ({}, []),
        ({}, [pod(name, 0, "Pending", FULL), pod(name, 1, "Pending", waiting={"reason": "ContainerCreating"})]),
        ({}, [pod(name, 0, "Running", **RUNNING), pod(name, 1, "Pending", waiting={"reason": "ContainerCreating"})]),
        ({}, [pod(name, 0, "Running", **RUNNING), pod(name, 1, "Running", **RUNNING)]),
    ]
    if poll < len(moments):
        return moments[poll]
    finish(job)
    return condition("Complete", "AllJobsCompleted"), [pod(name, 0, "Succeeded"), pod(name, 1, "Succeeded")]


def steady(job: dict[str, Any], poll: int) -> Any:
    """One that never ends."""
    return {}, [pod(job["metadata"]["name"], node, "Running", **RUNNING) for node in (0, 1)]


@dataclass
class Task:
    """A cluster, and a task in one of its pods."""

    cluster: Trainer
    folder: Path
    environment: dict[str, str]

    @property
    def inputs(self) -> dict[str, str]:
        return {name: str(self.folder / name) for name in ("split", "validation", "graph")} | {
            "data": "s3://bucket/birds"
        }

    def run(self, **changes: Any) -> dict[str, float]:
        return train_on_nodes(
            PARAMS, self.inputs, {"model": self.folder / "out" / "model"}, NODES | changes, str(self.folder / "data")
        )

    def process(self, **changes: Any) -> subprocess.Popen[str]:
        """The same in a process of its own, as a pod runs it."""
        model, nodes = str(self.folder / "out" / "model"), NODES | changes
        arguments = json.dumps({"inputs": self.inputs, "model": model, "nodes": nodes})
        return subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("trainjob_process.py")), arguments],
            env=self.environment,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_until(self, true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while not true():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    @property
    def left(self) -> list[str]:
        return [path for path in self.cluster.objects if path.startswith(JOBS)] + [
            path.name for path in (self.folder / "state" / "nodes").glob("*")
        ]


@pytest.fixture
def task(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Task]:
    """A cluster after `make deploy FOLDER=overlays/nodes`, with Kubeflow Trainer, and the inputs of a task."""
    monkeypatch.setattr(follow, "EVERY", 0.02)
    monkeypatch.setattr(jobs, "AGAIN", 0.02)
    cluster = Trainer(play=good)
    for folder in ("base", "nodes"):
        for path in (repository / "deploy" / folder).glob("*.yaml"):
            cluster.apply(
                SPACE,
                *(
                    item
                    for item in yaml.safe_load_all(path.read_text())
                    if item["kind"] not in ("Kustomization", "Component")
                ),
            )
    for name, mode in ((names.STATE_CLAIM, "ReadWriteMany"), (names.DATA_CLAIM, "ReadOnlyMany")):
        cluster.find(SPACE, "persistentvolumeclaims", name)["spec"]["accessModes"] = [mode]
    for name in ("split", "validation", "graph"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file.json").write_text(name)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with serving(cluster, tmp_path) as path:
        environment = {
            "KUBECONFIG": str(path),
            "CAPNET_STATE": str(tmp_path / "state"),
            "CAPNET_POD": "run-train-1",
            "CAPNET_POD_UID": "1234",
            "CAPNET_NAMESPACE": SPACE,
            "CAPNET_ACCOUNT": ACCOUNT,
            "CAPNET_RUN": "6f1c",
        }
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield Task(cluster, tmp_path, {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(repository), **environment})
    assert cluster.denied == [] or not any(path.endswith("/roles/capnet-nodes") for path in cluster.objects), (
        "a role lacks a right"
    )
