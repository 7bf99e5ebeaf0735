"""Training on several nodes: the task that starts a TrainJob, with the real Kubernetes client against a server that stands in for the cluster."""

from __future__ import annotations

import json
import logging
import signal
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
from contract.trainer_server import ACCOUNT, JOBS, SPACE, Trainer, condition, containers, pod

from capnet import cluster as names
from capnet.cluster_api import ClusterError
from capnet.config import parse
from capnet.contracts import write_json
from capnet.errors import CapnetError, ConfigError, ContractError, DataError
from capnet.trainjob import files, follow, jobs, spec
from capnet.trainjob.run import train_on_nodes

IMAGE = "registry.example.com/capnet-train@sha256:" + "a" * 64
NODES: dict[str, Any] = {"nodes": 2, "image": IMAGE}
PARAMS = parse({"runtime": {"seed": 3, "threads": 2}, "train": {"batch_size": 64}})
METRICS = {"epoch": 2.0, "loss": 0.25, "val_mAP": 0.5}
RUNNING = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
FULL = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."}]


def finish(job: dict[str, Any]) -> None:
    """What the nodes leave on the volume."""
    folder = Path(job["spec"]["trainer"]["command"][-1])
    (folder / "model").mkdir(exist_ok=True)
    (folder / "model" / "config.json").write_text("{}")
    write_json(folder / "metrics.json", METRICS)


def good(job: dict[str, Any], look: int) -> Any:
    """A TrainJob whose pods wait, start one after the other, and end well."""
    name = job["metadata"]["name"]
    moments = [
        ({}, []),
        ({}, [pod(name, 0, "Pending", FULL), pod(name, 1, "Pending", waiting={"reason": "ContainerCreating"})]),
        ({}, [pod(name, 0, "Running", **RUNNING), pod(name, 1, "Pending", waiting={"reason": "ContainerCreating"})]),
        ({}, [pod(name, 0, "Running", **RUNNING), pod(name, 1, "Running", **RUNNING)]),
    ]
    if look < len(moments):
        return moments[look]
    finish(job)
    return condition("Complete", "AllJobsCompleted"), [pod(name, 0, "Succeeded"), pod(name, 1, "Succeeded")]


def steady(job: dict[str, Any], look: int) -> Any:
    """One that never ends."""
    return {}, [pod(job["metadata"]["name"], node, "Running", **RUNNING) for node in (0, 1)]


@dataclass
class Place:
    """A cluster, and a task in one of its pods."""

    cluster: Trainer
    folder: Path
    environment: dict[str, str]

    @property
    def inputs(self) -> dict[str, str]:
        return {name: str(self.folder / name) for name in ("split", "validation", "graph")} | {"data": "s3://bucket/birds"}

    def run(self, **changes: Any) -> dict[str, float]:
        return train_on_nodes(PARAMS, self.inputs, {"model": self.folder / "out" / "model"}, NODES | changes, str(self.folder / "data"))

    def process(self) -> subprocess.Popen[str]:
        """The same in a process of its own, as a pod runs it."""
        given = json.dumps({"inputs": self.inputs, "model": str(self.folder / "out" / "model"), "nodes": NODES})
        return subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("trainjob_process.py")), given], env=self.environment, stderr=subprocess.PIPE, text=True
        )

    def wait_until(self, true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while not true():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    @property
    def left(self) -> list[str]:
        return [path for path in self.cluster.objects if path.startswith(JOBS)] + [path.name for path in (self.folder / "state" / "nodes").glob("*")]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "EVERY", 0.02)
    monkeypatch.setattr(jobs, "AGAIN", 0.02)


@pytest.fixture
def place(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """A cluster after `make deploy FOLDER=overlays/nodes`, with Kubeflow Trainer, and the inputs of a task."""
    cluster = Trainer(play=good)
    for folder in ("base", "nodes"):
        for path in (repository / "deploy" / folder).glob("*.yaml"):
            cluster.apply(SPACE, *(item for item in yaml.safe_load_all(path.read_text()) if item["kind"] not in ("Kustomization", "Component")))
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
        yield Place(cluster, tmp_path, {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(repository), **environment})
    assert cluster.denied == [] or not any(path.endswith("/roles/capnet-nodes") for path in cluster.objects), "a role lacks a right"


def test_a_training_is_followed_from_its_start_to_its_model_and_nothing_is_left(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "capnet")
    place.cluster.logs[0] = "training epoch 1 loss 0.31: 3 of 6, about 2 s left\nan odd line: é"
    assert place.run() == METRICS
    assert (place.folder / "out" / "model" / "config.json").is_file()
    assert place.left == []
    assert place.cluster.removed == [place.cluster.made[0]["metadata"]["name"]]
    said = [record.getMessage() for record in caplog.records]
    name = place.cluster.removed[0]
    waits = "Unschedulable: 0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    expected = [
        f"TrainJob {name} of 2 nodes, 1 process each",
        f"TrainJob {name}: created, no pod yet",
        f"TrainJob {name}: 0 of 2 nodes running; node 0 pending: {waits}; node 1 pending: ContainerCreating",
        f"TrainJob {name}: 1 of 2 nodes running; node 1 pending: ContainerCreating",
        "node 0: training epoch 1 loss 0.31: 3 of 6, about 2 s left",
        "node 0: an odd line: é",
        f"TrainJob {name}: 2 of 2 nodes running",
        f"TrainJob {name}: complete",
        f"TrainJob {name} is removed",
    ]
    assert said == expected


def test_the_trainjob_asks_for_what_the_pipeline_says(place: Place) -> None:
    changes = {
        "accelerator_count": 2,
        "cpu": "8",
        "memory": "24Gi",
        "shared_memory": "4Gi",
        "node_selector": {"gpu": "l4"},
        "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300.0}],
        "s3_secret": "ours",
        "data_claim": "capnet-data",
        "hours": 1.5,
    }
    place.run(**changes)
    (job,) = place.cluster.made
    assert job["metadata"]["ownerReferences"] == [{"apiVersion": "v1", "kind": "Pod", "name": "run-train-1", "uid": "1234"}]
    trainer = job["spec"]["trainer"]
    assert (trainer["image"], trainer["numNodes"], trainer["numProcPerNode"], job["spec"]["activeDeadlineSeconds"]) == (IMAGE, 2, 2, 5400)
    assert trainer["command"][:3] == ["torchrun", "-m", "capnet.trainjob.node"]
    assert trainer["resourcesPerNode"]["limits"] == {"memory": "24Gi", "nvidia.com/gpu": "2"}
    variables = {item["name"]: item for item in trainer["env"]}
    assert len(variables) == len(trainer["env"])
    assert variables["OMP_NUM_THREADS"]["value"] == "2"
    assert variables["AWS_SECRET_ACCESS_KEY"]["valueFrom"]["secretKeyRef"] == {"name": "ours", "key": "AWS_SECRET_ACCESS_KEY", "optional": True}
    assert {name for name, item in variables.items() if "valueFrom" in item} == {*names.S3_KEYS, *names.MLFLOW_KEYS, *names.GIT_KEYS}
    (patch,) = job["spec"]["runtimePatches"]
    assert patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["tolerations"] == [
        {"key": "gpu", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
    ]
    (node,) = containers(patch)
    mounts = {item["name"]: item["mountPath"] for item in node["volumeMounts"]}
    assert mounts == {"state": str(place.folder / "state"), "data": "/mnt/data", "shm": "/dev/shm", "tmp": "/tmp"}


def test_its_pods_are_pods_for_kubernetes_own_models(place: Place) -> None:
    """As Kubeflow Trainer puts them together: template of the runtime, patches, then its trainer section."""
    from kubernetes.client import ApiClient

    place.run(accelerator_count=1, node_selector={"gpu": "l4"}, tolerations=[{"key": "gpu", "operator": "Exists"}], data_claim="capnet-data")
    (job,) = place.cluster.made
    trainer = job["spec"]["trainer"]
    template = job["spec"]["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]
    (container,) = template["spec"]["containers"]
    container |= {key: trainer[key] for key in ("image", "command", "env")} | {"resources": trainer["resourcesPerNode"]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "node-0", **template["metadata"]}, "spec": template["spec"]}
    client = ApiClient()
    assert client.sanitize_for_serialization(client.deserialize(type("Answer", (), {"data": json.dumps(pod)}), "V1Pod")) == pod
    labels = template["metadata"]["labels"]
    assert labels == dict((names.LABEL, names.NODE_LABEL))


def test_inputs_lie_on_the_volume_while_it_trains(place: Place) -> None:
    seen: list[dict[str, Any]] = []
    (place.folder / "data" / "files").mkdir(parents=True)
    (place.folder / "data" / "files" / "1.png").write_text("picture")

    def play(job: dict[str, Any], look: int) -> Any:
        content = json.loads(Path(job["spec"]["trainer"]["command"][-1], "job.json").read_text())
        seen.append({name: [path.name for path in Path(where).iterdir()] for name, where in content["inputs"].items() if name != "data" or "://" not in where})
        seen.append(content)
        return good(job, 9)

    place.cluster.play = play
    place.run()
    assert seen[0] == {name: ["file.json"] for name in ("split", "validation", "graph")}
    assert seen[1]["inputs"]["data"] == "s3://bucket/birds"
    assert parse(seen[1]["params"]).runtime.seed == 3
    seen.clear()
    train_on_nodes(PARAMS, {**place.inputs, "data": str(place.folder / "data" / "files")}, {"model": place.folder / "model"}, NODES, str(place.folder / "data"))
    assert seen[0]["data"] == ["1.png"], "pictures that only this pod has are copied"


# ---------------------------------------------------------------- what can go wrong


def broken(write: CapnetError | None = None, complete: bool = False, reason: str = "", **last: Any) -> Callable[[dict[str, Any], int], Any]:
    """Node 1 breaks first; ``write`` is the error that training wrote down."""

    def play(job: dict[str, Any], look: int) -> Any:
        name = job["metadata"]["name"]
        if look < 2:
            return steady(job, look)
        if write:
            files.write_error(Path(job["spec"]["trainer"]["command"][-1]), 0, write)
        ends = [
            {"terminated": {"exitCode": 1, "reason": "Error", "finishedAt": "2026-01-01T00:00:09Z"}},
            {"terminated": {"finishedAt": "2026-01-01T00:00:05Z", **last}},
        ]
        pods = [pod(name, node, "Failed", **end) for node, end in enumerate(ends)]
        return condition("Complete" if complete else "Failed", reason or "JobSetFailed", "jobset failed due to one or more job failures"), pods

    return play


def waits(**changes: Any) -> Callable[[dict[str, Any], int], Any]:
    return lambda job, look: ({}, [pod(job["metadata"]["name"], 0, "Running", **RUNNING), pod(job["metadata"]["name"], 1, "Pending", **changes)])


def unroled(cluster: Trainer) -> None:
    cluster.remove(SPACE, "roles", "capnet-nodes")


def quota(cluster: Trainer) -> None:
    cluster.play = lambda job, look: ({}, [])
    involved = {"kind": "Job", "name": f"{spec.job_name(spec.Here.found(), 3)}-node-0"}
    cluster.events.append(
        {"involvedObject": involved, "message": 'Error creating: pods is forbidden: exceeded quota: gpus, requested: "8"', "lastTimestamp": "2026"}
    )


PULL = {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}}


@pytest.mark.parametrize(
    ("damage", "changes", "kind", "said", "made"),
    [
        (lambda c: setattr(c, "installed", False), {}, ClusterError, ["this cluster has no TrainJobs", "install Kubeflow Trainer"], False),
        (unroled, {}, ClusterError, ["this task may not look at TrainJobs", "FOLDER=overlays/nodes"], False),
        (lambda c: None, {"runtime": "torch-mine"}, ClusterError, ['"torch-mine" not found', "--training-runtime"], False),
        (lambda c: setattr(c, "old", True), {}, ClusterError, ["older than 2.2"], True),
        (
            lambda c: c.find(SPACE, "persistentvolumeclaims", "capnet-state")["spec"].update(accessModes=["ReadWriteOnce"]),
            {},
            ConfigError,
            ["ReadWriteMany, and this is ReadWriteOnce"],
            False,
        ),
        (
            lambda c: c.remove(SPACE, "persistentvolumeclaims", "capnet-data"),
            {"data_claim": "capnet-data"},
            ConfigError,
            ["there is no claim capnet-data"],
            False,
        ),
        (lambda c: None, {"nodes": 33, "processes_per_node": 2}, ConfigError, ["66 processes (33 nodes with 2 each) for batches of 64"], False),
        (lambda c: None, {"tolerations": [{"kee": "gpu"}]}, CapnetError, ["tolerations[0].kee"], False),
        (
            lambda c: setattr(c, "play", broken(DataError("the loss stopped being a number", "pictures 7", "look at them"), exitCode=1)),
            {},
            DataError,
            ["the loss stopped being a number", "pictures 7; TrainJob", "-node-0-1", "look at them"],
            True,
        ),
        (lambda c: setattr(c, "play", broken(exitCode=1, reason="JobSetFailed")), {}, CapnetError, ["node 1 of 2 failed", "exit code 1", "pod capnet-"], True),
        (lambda c: setattr(c, "play", broken(exitCode=137)), {}, ClusterError, ["node 1 of 2 failed", "raise --memory"], True),
        (
            lambda c: setattr(c, "play", lambda job, look: (condition("Failed", "DeadlineExceeded"), [])),
            {},
            ClusterError,
            ["DeadlineExceeded", "--train-hours"],
            True,
        ),
        (
            lambda c: setattr(c, "play", waits(conditions=FULL)),
            {"start_minutes": 0.002},
            ClusterError,
            ["1 of 2 nodes have not started", "Insufficient nvidia.com/gpu", "--start-minutes"],
            True,
        ),
        (lambda c: setattr(c, "play", waits(**PULL)), {}, ClusterError, ["node 1 cannot get its image", "Back-off pulling image", IMAGE], True),
        (quota, {"start_minutes": 0.002}, ClusterError, ["2 of 2 nodes have not started", "exceeded quota: gpus"], True),
        (
            lambda c: setattr(c, "play", lambda job, look: (condition("Complete"), [])),
            {},
            ContractError,
            ["their model is not on the state volume", "ReadWriteMany"],
            True,
        ),
    ],
)
def test_what_goes_wrong_is_named_and_nothing_is_left(
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[Trainer], Any],
    changes: dict[str, Any],
    kind: type[CapnetError],
    said: list[str],
    made: bool,
) -> None:
    monkeypatch.setattr(follow, "PULL_PATIENCE", 0.1)
    monkeypatch.setattr(files, "SECONDS", 0.0)
    damage(place.cluster)
    with pytest.raises(kind) as caught:
        place.run(**changes)
    error = caught.value
    for words in said:
        assert words in str(error)
    assert all(problem.where and problem.todo for problem in error.problems)
    assert len(place.cluster.made) == made
    assert place.left == []
    assert not (place.folder / "out").exists()


def test_a_failed_pod_is_quoted(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    place.cluster.play, place.cluster.logs[1] = broken(exitCode=1, reason="Error"), "Traceback\nRuntimeError: NCCL"
    with pytest.raises(CapnetError, match="node 1 of 2 failed: Error, exit code 1"):
        place.run()
    assert "node 1: RuntimeError: NCCL" in [record.getMessage() for record in caplog.records]


def test_an_api_that_is_away_for_a_while_stops_nothing(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "capnet")

    def play(job: dict[str, Any], look: int) -> Any:
        if look == 2:
            place.cluster.silence = 8
        return good(job, look)

    place.cluster.play = play
    assert place.run() == METRICS
    assert place.cluster.silence == 0
    said = [record.getMessage() for record in caplog.records]
    assert sum("goes on asking" in line for line in said) == 1
    assert "the cluster answers again" in said
    assert place.left == []


def test_an_api_that_stays_away_is_an_error(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "PATIENCE", 0.1)
    monkeypatch.setattr(jobs, "GONE_SECONDS", 0.1)

    def play(job: dict[str, Any], look: int) -> Any:
        place.cluster.silence = 10**6
        return steady(job, look)

    place.cluster.play = play
    with pytest.raises(ClusterError, match=r"503|cannot be reached"):
        place.run()
    assert len(place.left) == 2, "the nodes may still write: their folder stays, and Kubernetes removes the TrainJob with the pod that owns it"


def test_one_that_somebody_removes_is_missed(place: Place) -> None:
    def play(job: dict[str, Any], look: int) -> Any:
        if look == 2:
            job["metadata"]["deletionTimestamp"] = "now"
        return steady(job, look)

    place.cluster.play = play
    with pytest.raises(jobs.Gone, match="removed while it trained"):
        place.run()
    assert place.left == []


# ---------------------------------------------------------------- processes that end


def test_a_cancelled_task_takes_its_trainjob_along(place: Place) -> None:
    place.cluster.play = steady
    process = place.process()
    place.wait_until(lambda: bool(place.cluster.made) and place.cluster.looks.get(place.cluster.made[0]["metadata"]["name"], 0) > 1)
    assert place.left
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=20)[1]
    assert process.returncode == 143
    assert "cancelled error, exit code 143\nthe task was cancelled" in said
    assert place.cluster.removed == [place.cluster.made[0]["metadata"]["name"]]
    assert place.left == []


def test_another_try_follows_what_a_killed_one_left(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.cluster.play = steady
    process = place.process()
    place.wait_until(lambda: bool(place.cluster.made) and place.cluster.looks.get(place.cluster.made[0]["metadata"]["name"], 0) > 1)
    process.kill()
    process.communicate(timeout=20)
    assert len(place.left) == 2
    place.cluster.play = good
    monkeypatch.setenv("CAPNET_POD", "run-train-2")
    monkeypatch.setenv("CAPNET_POD_UID", "5678")
    assert place.run() == METRICS
    (job,) = place.cluster.made
    assert job["metadata"]["ownerReferences"] == [{"apiVersion": "v1", "kind": "Pod", "name": "run-train-2", "uid": "5678"}]
    assert place.left == []


def test_nodes_learn_that_the_task_was_cancelled_although_it_is_killed_at_once(place: Place) -> None:
    def play(job: dict[str, Any], look: int) -> Any:
        place.cluster.silence = 10**6 if look == 2 else 0
        return steady(job, look)

    place.cluster.play = play
    process = place.process()
    place.wait_until(lambda: place.cluster.silence > 0)
    process.send_signal(signal.SIGTERM)
    (folder,) = (place.folder / "state" / "nodes").iterdir()
    place.wait_until(lambda: files.is_abandoned(folder))
    process.kill()
    process.communicate(timeout=20)
    place.cluster.silence, place.cluster.play = 0, good
    assert place.run() == METRICS
    assert len(place.cluster.made) == 2, "what was told to end is not followed"
    assert place.left == []


@pytest.mark.parametrize("said", ["abandoned", "nothing", "alive"])
def test_a_node_ends_by_itself_once_nobody_waits(tmp_path: Path, repository: Path, said: str) -> None:
    if said == "abandoned":
        files.abandon(tmp_path)
    code = (
        "import sys, time; from pathlib import Path; from capnet.trainjob import node; node.EVERY, node.PATIENCE = 0.05, 1.0; "
        "import threading; threading.Thread(target=node.leave_when_nobody_waits, args=(Path(sys.argv[1]),), daemon=True).start(); time.sleep(1.8); sys.exit(5)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=repository, stderr=subprocess.PIPE, text=True)
    while process.poll() is None:
        if said == "alive":
            files.beat(tmp_path)
        time.sleep(0.05)
    assert process.returncode == (5 if said == "alive" else 0), process.stderr
    assert files.is_abandoned(tmp_path) == (said != "alive"), "processes that are started again end at once"


@pytest.mark.parametrize("change", ["image", "failed", "going"])
def test_what_cannot_be_followed_is_replaced(place: Place, change: str) -> None:
    folder = place.folder / "state" / "nodes" / "old"
    left = spec.train_job(spec.job_name(spec.Here.found(), 3), folder, spec.settings_of(NODES, PARAMS), spec.Here.found(), 2)
    place.cluster.objects[f"{JOBS}/{left['metadata']['name']}"] = left
    if change == "image":
        left["spec"]["trainer"]["image"] = "another"
    elif change == "failed":
        left["status"] = condition("Failed")
        place.cluster.play = lambda job, look: good(job, look) if place.cluster.made else (condition("Failed"), [])
    else:
        left["metadata"]["deletionTimestamp"] = "now"
    assert place.run() == METRICS
    assert len(place.cluster.made) == 1
    assert place.left == []


def test_one_that_goes_with_the_pod_that_started_it_is_started_anew(place: Place) -> None:
    here = spec.Here.found()
    name = spec.job_name(here, 3)
    left = spec.train_job(name, here.state / "nodes" / name, spec.settings_of(NODES, PARAMS), here, 2)
    place.cluster.objects[f"{JOBS}/{name}"] = left

    def play(job: dict[str, Any], look: int) -> Any:
        if not place.cluster.made and look == 2:
            del place.cluster.objects[f"{JOBS}/{name}"]
        return good(job, look) if place.cluster.made else steady(job, look)

    place.cluster.play = play
    assert place.run() == METRICS
    assert len(place.cluster.made) == 1


def test_outside_of_a_cluster_it_says_what_to_do_instead(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CAPNET_NAMESPACE")
    with pytest.raises(ConfigError, match="--nproc-per-node 2 -m capnet"):
        place.run()
