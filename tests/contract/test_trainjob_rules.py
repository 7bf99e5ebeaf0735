"""The stand-in for Kubeflow Trainer refuses what its CRD and its webhook refuse, and takes TrainJobs that we make."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from contract.trainer_rules import Runtime
from contract.trainer_server import JOBS, REFUSAL, SPACE, Trainer

from capnet.cluster import trainjob_spec as spec
from capnet.cluster.trainjob_spec import Nodes, TaskPod, train_job
from pipelines.checks import toleration_advice

IMAGE = "registry.example.com/capnet-train@sha256:" + "a" * 64
HERE = TaskPod(SPACE, "run-train-1", "1234", "capnet-pipeline", "6f1c", Path("/var/capnet"))
EVERYTHING: dict[str, Any] = {
    "accelerator_count": 8,
    "data_claim": "capnet-data",
    "pull_secret": "registry-key",
    "node_selector": {"pool": "gpu"},
    "tolerations": [{"key": "gpu", "operator": "Exists"}],
    "cpu": "500m",
    "memory": "1.5Gi",
}
OTHERS = {
    "torch-distributed": Runtime(),
    "of-the-namespace": Runtime("TrainingRuntime"),
    "with-data": Runtime(jobs={"node": ("node",), "dataset-initializer": ("dataset-initializer",)}),
    "with-side-cars": Runtime(jobs={"node": ("node", "logs"), "dataset-initializer": ("other",)}),
    "mpi": Runtime(policy="mpi"),
    "xgboost": Runtime(policy="xgboost"),
    "flux": Runtime(policy="flux"),
    "torchtune-llama3.2-1b": Runtime(),
}


def ours(runtime: str = "torch-distributed", nodes: int = 2, **more: Any) -> dict[str, Any]:
    arguments = Nodes.model_validate({"nodes": nodes, "image": IMAGE, "runtime": runtime, **more})
    return copy.deepcopy(train_job("capnet-0123456789-s3", Path("/var/capnet/nodes/x"), arguments, HERE, 2))


@pytest.mark.parametrize(
    ("runtime", "more"),
    [("torch-distributed", {}), ("torch-distributed", EVERYTHING), ("TrainingRuntime/of-the-namespace", EVERYTHING)],
)
def test_ours_are_taken(runtime: str, more: dict[str, Any]) -> None:
    cluster = Trainer(runtimes=OTHERS)
    assert cluster.create(ours(runtime, **more))[0] == 201
    assert cluster.create(ours(runtime, **more))[0] == 409


def test_a_toleration_with_empty_fields_is_taken_as_submit_takes_it() -> None:
    given = {"key": "gpu", "operator": "", "value": None, "effect": "NoExecute", "tolerationSeconds": 0}
    assert not toleration_advice(given)
    job = ours(tolerations=[given])
    (taken,) = inside(job["spec"], *POD)["tolerations"]
    assert taken == {"key": "gpu", "effect": "NoExecute", "tolerationSeconds": 0}
    assert Trainer(runtimes=OTHERS).create(job)[0] == 201


def inside(item: Any, *keys: Any) -> Any:
    for key in keys:
        item = item[key]
    return item


def test_the_manager_of_our_patches_has_a_domain() -> None:
    host, _, path = spec.MANAGER.partition("/")
    assert "." in host
    assert path


def into(*keys: Any, **changes: Any) -> Callable[[dict[str, Any]], None]:
    """Changes of what lies at ``keys`` below spec."""

    def change(job: dict[str, Any]) -> None:
        result = job["spec"]
        for key in keys:
            result = result.setdefault(key, {}) if isinstance(result, dict) else result[key]
        result |= changes

    return change


REPLICATED = ("runtimePatches", 0, "trainingRuntimeSpec", "template", "spec", "replicatedJobs", 0)
POD = (*REPLICATED, "template", "spec", "template", "spec")
ONE: dict[str, Any] = {"name": "one"}


def named(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda job: job["metadata"].update(name=name)


def twice(job: dict[str, Any]) -> None:
    job["spec"]["runtimePatches"] *= 2


SCHEMA: list[tuple[str, Callable[[dict[str, Any]], None]]] = [
    ("metadata.name must match RFC 1035", named("1st")),
    ("metadata.name must match RFC 1035", named("capnet.s3")),
    ("metadata.name must be no more than 63 characters", named("a" * 64)),
    ("spec.runtimeRef.name in body should be at least 1", into("runtimeRef", name="")),
    ("spec.runtimeRef.name: Too long", into("runtimeRef", name="a" * 254)),
    ("spec.activeDeadlineSeconds in body should be greater than or equal to 1", into(activeDeadlineSeconds=0)),
    ("spec.managedBy must be", into(managedBy="capnet")),
    ("spec.initializer.dataset.storageUri may be empty", into("initializer", dataset={"storageUri": "/mnt/data"})),
    ("spec.trainer.image: Too long", into("trainer", image="a" * 501)),
    ("spec.trainer.command: Too many: 129", into("trainer", command=["a"] * 129)),
    ("spec.trainer.args: Too long", into("trainer", args=["a" * 65537])),
    (
        "spec.trainer.env: Too many: 129",
        into("trainer", env=[{"name": f"A{number}", "value": ""} for number in range(129)]),
    ),
    (
        "spec.trainer.env: Duplicate value",
        into("trainer", env=[{"name": "A", "value": ""}, {"name": "A", "value": ""}]),
    ),
    (
        "spec.trainer.resourcesPerNode.limits.memory in body should match",
        into("trainer", "resourcesPerNode", "limits", memory="8 GB"),
    ),
    ("spec.runtimePatches: Duplicate value", twice),
    ("spec.runtimePatches[0].manager in body should be at least 1", into("runtimePatches", 0, manager="")),
    ("spec.runtimePatches[0].manager: Too long", into("runtimePatches", 0, manager="a.b/" + "a" * 250)),
    ("replicatedJobs.name in body should be at least 1", into(*REPLICATED, name="")),
    ("serviceAccountName: Too long", into(*POD, serviceAccountName="a" * 254)),
    ("volumes: Duplicate value", into(*POD, volumes=[ONE, ONE])),
    ("volumes: Too many: 129", into(*POD, volumes=[{"name": f"v{number}"} for number in range(129)])),
    ("tolerations: Too many: 129", into(*POD, tolerations=[{}] * 129)),
    ("imagePullSecrets: Duplicate value", into(*POD, imagePullSecrets=[ONE, ONE])),
    ("containers: Duplicate value", into(*POD, containers=[ONE, ONE])),
    (
        "volumeMounts: Duplicate value",
        into(*POD, "containers", 0, volumeMounts=[ONE | {"mountPath": "/a"}, ONE | {"mountPath": "/b"}]),
    ),
    ("terminationGracePeriodSeconds in body should be greater", into(*POD, terminationGracePeriodSeconds=-1)),
]


@pytest.mark.parametrize(("message", "change"), SCHEMA, ids=range(len(SCHEMA)))
def test_the_schema_refuses(message: str, change: Callable[[dict[str, Any]], None]) -> None:
    job = ours()
    change(job)
    cluster = Trainer(runtimes=OTHERS)
    status, answer = cluster.create(job)
    assert status == 422
    assert message in answer
    assert cluster.made == []


def manager(value: str) -> Callable[[dict[str, Any]], None]:
    return into("runtimePatches", 0, manager=value)


def runtime(name: str, *more: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], None]:
    def change(job: dict[str, Any]) -> None:
        job["spec"]["runtimeRef"]["name"] = name
        for each in more:
            each(job)

    return change


def reserved(name: str) -> Callable[[dict[str, Any]], None]:
    return into("trainer", env=[{"name": name, "value": "1"}])


DATA = into("initializer", dataset={"storageUri": "s3://bucket/birds"})
MODEL = into("initializer", model={})
WEBHOOK: list[tuple[str, Callable[[dict[str, Any]], None]]] = [
    ('spec.runtimePatches.manager: Invalid value: "capnet": must be a domain-prefixed path', manager("capnet")),
    ("must be a domain-prefixed path", manager("capnet/")),
    ("must be a domain-prefixed path", manager("/capnet")),
    ("a lowercase RFC 1123 subdomain", manager("Capnet.internal/pipelines")),
    ("a lowercase RFC 1123 subdomain", manager("capnet_pipelines.internal/train")),
    ("Invalid path", manager("capnet.internal/a b")),
    ("unsupported runtime: Runtime.trainer.kubeflow.org", into("runtimeRef", kind="Runtime")),
    ("unsupported runtime: ClusterTrainingRuntime.capnet", into("runtimeRef", apiGroup="capnet")),
    (
        'spec.RuntimeRef: Invalid value: ClusterTrainingRuntime.trainer.kubeflow.org "mine" not found: specified c',
        runtime("mine"),
    ),
    (
        'spec.runtimeRef: Invalid value: TrainingRuntime.trainer.kubeflow.org "mine" not found: specified t',
        into("runtimeRef", kind="TrainingRuntime", name="mine"),
    ),
    ('"of-the-namespace" not found', runtime("of-the-namespace")),
    ("must not have envs for the", into(*POD, "containers", 0, env=[{"name": "A", "value": "1"}])),
    ("must have dataset-initializer job", DATA),
    ("must have model-initializer job", MODEL),
    ("must have container with name - dataset-initializer", runtime("with-side-cars", DATA)),
    ("must have volumeMount with name - initializer", runtime("with-data", DATA)),
    ("invalid envs configured: ['PET_NNODES']", reserved("PET_NNODES")),
    ("invalid envs configured: ['PET_MASTER_ADDR']", reserved("PET_MASTER_ADDR")),
    ("invalid envs configured: ['OMPI_MCA_plm_rsh_args']", runtime("mpi", reserved("OMPI_MCA_plm_rsh_args"))),
    ("must have 1 when MPI trainingRuntime", runtime("mpi")),
    ("invalid envs configured: ['DMLC_TASK_ID']", runtime("xgboost", reserved("DMLC_TASK_ID"))),
    ("must be greater than or equal to 1 for Flux", runtime("flux", into("trainer", numProcPerNode=0))),
    ("must have a supported pretrained model", into("trainer", command=["tune", "run"])),
    ("must be 1 for llama3_2/1B model", runtime("torchtune-llama3.2-1b", into("trainer", command=["tune", "run"]))),
]


@pytest.mark.parametrize(("message", "change"), WEBHOOK, ids=range(len(WEBHOOK)))
def test_the_webhook_refuses(message: str, change: Callable[[dict[str, Any]], None]) -> None:
    job = ours()
    change(job)
    cluster = Trainer(runtimes=OTHERS)
    status, answer = cluster.create(job)
    assert status == 403
    assert answer.startswith(REFUSAL)
    assert message in answer
    assert cluster.made == []


@pytest.mark.parametrize(
    "change",
    [
        into(*REPLICATED, name="worker"),
        into(*POD, "containers", 0, name="trainer"),
        into(*POD, initContainers=[ONE]),
    ],
)
def test_what_a_runtime_lacks_is_merged_into_it(change: Callable[[dict[str, Any]], None]) -> None:
    """Seen on Kubeflow Trainer 2.3.0, although its source has rules against all three."""
    job = ours()
    change(job)
    assert Trainer(runtimes=OTHERS).create(job)[0] == 201


def test_what_other_runtimes_take() -> None:
    for change in (runtime("xgboost", reserved("PET_NNODES")), runtime("torch-distributed", reserved("DMLC_TASK_ID"))):
        job = ours()
        change(job)
        assert Trainer(runtimes=OTHERS).create(job)[0] == 201


def test_patches_of_a_running_job_do_not_change() -> None:
    cluster = Trainer()
    _, job = cluster.create(ours())
    cluster.may = lambda verb, path: True  # type: ignore[method-assign]
    path = f"{JOBS}/{job['metadata']['name']}"
    assert cluster.more("PATCH", path, {}, {"metadata": {"ownerReferences": []}}) == (200, job)
    status, answer = cluster.more("PATCH", path, {}, {"spec": {"runtimePatches": []}}) or (0, "")
    assert status == 403
    assert "RuntimePatches can only be modified when the TrainJob is suspended" in answer
    assert (cluster.more("PATCH", path, {}, {"spec": {"runtimePatches": [], "suspend": True}}) or (0, ""))[0] == 200
