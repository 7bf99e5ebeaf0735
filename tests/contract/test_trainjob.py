"""Training on several nodes: the task that starts a TrainJob, with the real Kubernetes client against a server that
stands in for the cluster.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from contract import trainjob_task
from contract.trainer_server import containers, pod
from contract.trainjob_task import IMAGE, METRICS, NODES, PARAMS, RUNNING, Task, good

from capnet.cluster import names
from capnet.cluster.trainjob_run import train_on_nodes
from capnet.config import parse

pytestmark = pytest.mark.slow

task = trainjob_task.task


def test_a_training_is_followed_from_its_start_to_its_model_and_nothing_is_left(
    task: Task, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "capnet")
    task.cluster.logs[0] = "training epoch 1 loss 0.31: 3 of 6, about 2 s left\nan odd line: é"
    assert task.run() == METRICS
    assert (task.folder / "out" / "model" / "config.json").is_file()
    assert task.left == []
    assert task.cluster.removed == [task.cluster.made[0]["metadata"]["name"]]
    messages = [record.getMessage() for record in caplog.records]
    name = task.cluster.removed[0]
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
    assert messages == expected


@pytest.mark.parametrize("order", [1, -1])
def test_an_evicted_pod_does_not_hide_its_successor(task: Task, caplog: pytest.LogCaptureFixture, order: int) -> None:
    """Kubernetes keeps it, as Failed, beside the pod that takes its index; its log is gone."""
    caplog.set_level(logging.INFO, "capnet")

    def play(job: dict[str, Any], poll: int) -> Any:
        name = job["metadata"]["name"]
        evicted, successor = pod(name, 0, "Failed"), pod(name, 0, "Running" if poll > 1 else "Pending", **RUNNING)
        evicted["status"] |= {"reason": "Evicted", "message": "The node was low on resource: memory."}
        for item, suffix in zip((evicted, successor), ("a", "z")[::order], strict=True):
            item["metadata"]["name"] = f"{name}-node-0-0-{suffix}"
        return good(job, poll) if poll > 3 else ({}, [evicted, successor, pod(name, 1, "Running", **RUNNING)])

    task.cluster.play = play
    assert task.run() == METRICS
    messages = [record.getMessage() for record in caplog.records]
    assert any(line.endswith("1 of 2 nodes running; node 0 pending") for line in messages)
    assert any(line.endswith(": 2 of 2 nodes running") for line in messages)
    assert not any("Evicted" in line for line in messages)


def test_the_nodes_reach_what_other_tasks_reach_through_a_proxy(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    # as the driver of Kubeflow Pipelines writes them into every task: backend/src/apiserver/config/proxy/config.go
    proxies = {"https_proxy": "http://proxy:3128", "HTTPS_PROXY": "http://proxy:3128"}
    none = {"no_proxy": "localhost,127.0.0.1,.svc", "NO_PROXY": "localhost,127.0.0.1,.svc"}
    for name, value in (proxies | none).items():
        monkeypatch.setenv(name, value)
    task.run()
    (job,) = task.cluster.made
    env = {item["name"]: item.get("value") for item in job["spec"]["trainer"]["env"]}
    assert {name: env.get(name) for name in proxies | none} == proxies | none
    assert "HTTP_PROXY" not in env


@pytest.mark.parametrize(("uid", "user"), [(1000, 1000), (0, None)])
def test_the_nodes_run_as_the_user_whose_folder_they_write_to(
    task: Task, monkeypatch: pytest.MonkeyPatch, uid: int, user: int | None
) -> None:
    """kubeflow/pipelines 2.17.0, backend/src/v2/driver/k8s.go, extendPodSpecPatch: DEFAULT_SECURITY_CONTEXT_RUN_AS_USER
    of the server takes the place of the image's user, in the pods of tasks alone.
    """
    monkeypatch.setattr("os.getuid", lambda: uid)
    task.run()
    (job,) = task.cluster.made
    (pods,) = job["spec"]["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    assert pods["template"]["spec"]["template"]["spec"]["securityContext"].get("runAsUser") == user


def test_the_nodes_get_the_certificates_of_the_tasks_own_pod(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    # as the launcher of Kubeflow Pipelines does before it starts a task: backend/src/v2/component/launcher_v2.go
    own, variables = task.folder / "ca-bundle-1.crt", ("REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE", "SSL_CERT_FILE")
    own.write_text("certificates")
    for name in variables:
        monkeypatch.setenv(name, str(own))
    seen: dict[str, str] = {}

    def play(job: dict[str, Any], poll: int) -> Any:
        env = {item["name"]: item.get("value", "") for item in job["spec"]["trainer"]["env"]}
        paths = {name: Path(env[name]) for name in variables if name in env}
        on_volume = {name: path for name, path in paths.items() if path.is_relative_to(task.folder / "state")}
        seen.update({name: path.read_text() for name, path in on_volume.items()})
        return good(job, 9)

    task.cluster.play = play
    task.run()
    assert seen == dict.fromkeys(variables, "certificates")


def test_the_trainjob_asks_for_what_the_pipeline_says(task: Task) -> None:
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
    task.run(**changes)
    (job,) = task.cluster.made
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
    assert mounts == {"state": str(task.folder / "state"), "data": "/mnt/data", "shm": "/dev/shm", "tmp": "/tmp"}


def test_its_pods_are_pods_for_kubernetes_own_models(task: Task) -> None:
    """As Kubeflow Trainer puts them together: template of the runtime, patches, then its trainer section."""
    from kubernetes.client import ApiClient

    task.run(
        accelerator_count=1,
        node_selector={"gpu": "l4"},
        tolerations=[{"key": "gpu", "operator": "Exists"}],
        data_claim="capnet-data",
    )
    (job,) = task.cluster.made
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


def test_inputs_lie_on_the_volume_while_it_trains(task: Task) -> None:
    seen: list[dict[str, Any]] = []
    (task.folder / "data" / "files").mkdir(parents=True)
    (task.folder / "data" / "files" / "1.png").write_text("picture")

    def play(job: dict[str, Any], poll: int) -> Any:
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

    task.cluster.play = play
    task.run()
    assert seen[0] == {name: ["file.json"] for name in ("split", "validation", "graph")}
    assert seen[1]["inputs"]["data"] == "s3://bucket/birds"
    assert parse(seen[1]["params"]).runtime.seed == 3
    seen.clear()
    train_on_nodes(
        PARAMS,
        {**task.inputs, "data": str(task.folder / "data" / "files")},
        {"model": task.folder / "model"},
        NODES,
        str(task.folder / "data"),
    )
    assert seen[0]["data"] == ["1.png"], "pictures that only this pod has are copied"
