"""Training on several nodes: the task that starts a TrainJob, with the real Kubernetes client against a server that
stands in for the cluster.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from contract.trainer_server import SPACE, Trainer, condition, containers, pod
from contract.trainjob_place import FULL, IMAGE, METRICS, NODES, PARAMS, RUNNING, Place, good, opened, steady

from capnet.cluster import names
from capnet.cluster import trainjob_files as files
from capnet.cluster import trainjob_spec as spec
from capnet.cluster import trainjob_wait as follow
from capnet.cluster import trainjobs as jobs
from capnet.cluster.kubernetes_api import ClusterError
from capnet.cluster.trainjob_run import train_on_nodes
from capnet.config import parse
from capnet.errors import CapnetError, ConfigError, ContractError, DataError

pytestmark = pytest.mark.slow


@pytest.fixture
def place(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    with opened(repository, tmp_path, monkeypatch) as found:
        yield found


def test_a_training_is_followed_from_its_start_to_its_model_and_nothing_is_left(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
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
    assert job["metadata"]["ownerReferences"] == [
        {"apiVersion": "v1", "kind": "Pod", "name": "run-train-1", "uid": "1234"}
    ]
    trainer = job["spec"]["trainer"]
    assert (trainer["image"], trainer["numNodes"], trainer["numProcPerNode"], job["spec"]["activeDeadlineSeconds"]) == (
        IMAGE,
        2,
        2,
        5400,
    )
    assert trainer["command"][:3] == ["torchrun", "-m", "capnet.cluster.trainjob_node"]
    assert trainer["resourcesPerNode"]["limits"] == {"memory": "24Gi", "nvidia.com/gpu": "2"}
    variables = {item["name"]: item for item in trainer["env"]}
    assert len(variables) == len(trainer["env"])
    assert variables["OMP_NUM_THREADS"]["value"] == "2"
    assert variables["AWS_SECRET_ACCESS_KEY"]["valueFrom"]["secretKeyRef"] == {
        "name": "ours",
        "key": "AWS_SECRET_ACCESS_KEY",
        "optional": True,
    }
    assert {name for name, item in variables.items() if "valueFrom" in item} == {
        *names.S3_KEYS,
        *names.MLFLOW_KEYS,
        *names.GIT_KEYS,
    }
    (patch,) = job["spec"]["runtimePatches"]
    assert patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]["template"][
        "spec"
    ]["tolerations"] == [{"key": "gpu", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}]
    (node,) = containers(patch)
    mounts = {item["name"]: item["mountPath"] for item in node["volumeMounts"]}
    assert mounts == {"state": str(place.folder / "state"), "data": "/mnt/data", "shm": "/dev/shm", "tmp": "/tmp"}


def test_its_pods_are_pods_for_kubernetes_own_models(place: Place) -> None:
    """As Kubeflow Trainer puts them together: template of the runtime, patches, then its trainer section."""
    from kubernetes.client import ApiClient

    place.run(
        accelerator_count=1,
        node_selector={"gpu": "l4"},
        tolerations=[{"key": "gpu", "operator": "Exists"}],
        data_claim="capnet-data",
    )
    (job,) = place.cluster.made
    trainer = job["spec"]["trainer"]
    template = job["spec"]["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"][0][
        "template"
    ]["spec"]["template"]
    (container,) = template["spec"]["containers"]
    container |= {key: trainer[key] for key in ("image", "command", "env")} | {"resources": trainer["resourcesPerNode"]}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "node-0", **template["metadata"]},
        "spec": template["spec"],
    }
    client = ApiClient()
    assert (
        client.sanitize_for_serialization(client.deserialize(type("Answer", (), {"data": json.dumps(pod)}), "V1Pod"))
        == pod
    )
    labels = template["metadata"]["labels"]
    # kubeflow/trainer, issues 2794 and 2872: in a profile, nodes behind Istio's sidecars do not find each other
    assert labels == dict((names.LABEL, names.NODE_LABEL)) | {"sidecar.istio.io/inject": "false"}


def test_inputs_lie_on_the_volume_while_it_trains(place: Place) -> None:
    seen: list[dict[str, Any]] = []
    (place.folder / "data" / "files").mkdir(parents=True)
    (place.folder / "data" / "files" / "1.png").write_text("picture")

    def play(job: dict[str, Any], look: int) -> Any:
        content = json.loads(Path(job["spec"]["trainer"]["command"][-1], "job.json").read_text())
        seen.append(
            {
                name: [path.name for path in Path(where).iterdir()]
                for name, where in content["inputs"].items()
                if name != "data" or "://" not in where
            }
        )
        seen.append(content)
        return good(job, 9)

    place.cluster.play = play
    place.run()
    assert seen[0] == {name: ["file.json"] for name in ("split", "validation", "graph")}
    assert seen[1]["inputs"]["data"] == "s3://bucket/birds"
    assert parse(seen[1]["params"]).runtime.seed == 3
    seen.clear()
    train_on_nodes(
        PARAMS,
        {**place.inputs, "data": str(place.folder / "data" / "files")},
        {"model": place.folder / "model"},
        NODES,
        str(place.folder / "data"),
    )
    assert seen[0]["data"] == ["1.png"], "pictures that only this pod has are copied"


# ---------------------------------------------------------------- what can go wrong


def broken(
    write: CapnetError | None = None, complete: bool = False, reason: str = "", **last: Any
) -> Callable[[dict[str, Any], int], Any]:
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
        return condition(
            "Complete" if complete else "Failed",
            reason or "JobSetFailed",
            "jobset failed due to one or more job failures",
        ), pods

    return play


def waits(**changes: Any) -> Callable[[dict[str, Any], int], Any]:
    return lambda job, look: (
        {},
        [pod(job["metadata"]["name"], 0, "Running", **RUNNING), pod(job["metadata"]["name"], 1, "Pending", **changes)],
    )


def unroled(cluster: Trainer) -> None:
    cluster.remove(SPACE, "roles", "capnet-nodes")


def quota(cluster: Trainer) -> None:
    cluster.play = lambda job, look: ({}, [])
    involved = {"kind": "Job", "name": f"{spec.job_name(spec.Here.from_environment(), 3)}-node-0"}
    cluster.events.append(
        {
            "involvedObject": involved,
            "message": 'Error creating: pods is forbidden: exceeded quota: gpus, requested: "8"',
            "lastTimestamp": "2026",
        }
    )


PULL = {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}}


@pytest.mark.parametrize(
    ("damage", "changes", "kind", "said", "made"),
    [
        (
            lambda c: setattr(c, "installed", False),
            {},
            ClusterError,
            ["this cluster has no TrainJobs", "install Kubeflow Trainer"],
            False,
        ),
        (unroled, {}, ClusterError, ["this task may not look at TrainJobs", "FOLDER=overlays/nodes"], False),
        (
            lambda c: None,
            {"runtime": "torch-mine"},
            ClusterError,
            ['"torch-mine" not found', "--training-runtime"],
            False,
        ),
        (lambda c: setattr(c, "old", True), {}, ClusterError, ["older than 2.2"], True),
        (
            lambda c: c.find(SPACE, "persistentvolumeclaims", "capnet-state")["spec"].update(
                accessModes=["ReadWriteOnce"]
            ),
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
        (
            lambda c: None,
            {"nodes": 33, "processes_per_node": 2},
            ConfigError,
            ["66 processes (33 nodes with 2 each) for batches of 64"],
            False,
        ),
        (lambda c: None, {"tolerations": [{"kee": "gpu"}]}, CapnetError, ["tolerations[0].kee"], False),
        (
            lambda c: setattr(
                c,
                "play",
                broken(DataError("the loss stopped being a number", "pictures 7", "look at them"), exitCode=1),
            ),
            {},
            DataError,
            ["the loss stopped being a number", "pictures 7; TrainJob", "-node-0-1", "look at them"],
            True,
        ),
        (
            lambda c: setattr(c, "play", broken(exitCode=1, reason="JobSetFailed")),
            {},
            CapnetError,
            ["node 1 of 2 failed", "exit code 1", "pod capnet-"],
            True,
        ),
        (
            lambda c: setattr(c, "play", broken(exitCode=137)),
            {},
            ClusterError,
            ["node 1 of 2 failed", "raise --memory"],
            True,
        ),
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
        (
            lambda c: setattr(c, "play", waits(**PULL)),
            {},
            ClusterError,
            ["node 1 cannot get its image", "Back-off pulling image", IMAGE],
            True,
        ),
        (
            quota,
            {"start_minutes": 0.002},
            ClusterError,
            ["2 of 2 nodes have not started", "exceeded quota: gpus"],
            True,
        ),
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
    assert len(place.left) == 2, (
        "the nodes may still write: their folder stays, and Kubernetes removes the TrainJob with the pod that owns it"
    )


def test_one_that_somebody_removes_is_missed(place: Place) -> None:
    def play(job: dict[str, Any], look: int) -> Any:
        if look == 2:
            job["metadata"]["deletionTimestamp"] = "now"
        return steady(job, look)

    place.cluster.play = play
    with pytest.raises(jobs.Gone, match="removed while it trained"):
        place.run()
    assert place.left == []


def test_a_node_that_ends_late_leaves_no_folder_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = ConfigError("what", "where", "todo")
    files.write_error(tmp_path / "gone", 0, error)
    assert not (tmp_path / "gone").exists()
    folder = tmp_path / "job"
    folder.mkdir()
    files.write_error(folder, 0, error)
    rmtree, tries = shutil.rmtree, []

    def disturbed(path: Path, **options: bool) -> None:
        tries.append(path)
        if len(tries) > 1:
            rmtree(path, **options)

    monkeypatch.setattr("shutil.rmtree", disturbed)
    files.clear(folder)
    assert len(tries) == 2
    assert not folder.exists()
