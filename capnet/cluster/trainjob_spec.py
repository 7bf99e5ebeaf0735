"""The TrainJob of one training: what Kubeflow Trainer, from 2.2 on, is asked to run. Read it as the YAML it becomes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from capnet.cluster import names
from capnet.config import Params
from capnet.errors import CapnetError, ConfigError
from capnet.section import problems_of

GROUP, VERSION = "trainer.kubeflow.org", "v1alpha1"
STEP = "node"  # of the runtime's job, and of its container: Kubeflow Trainer's own word
SETTINGS = "capnet.internal/settings"  # annotation: sha256 of what another try asks for again
# Kubeflow's profiles give every pod a sidecar; Kubeflow Pipelines exempts its tasks in the same way
NO_SIDECAR = {"sidecar.istio.io/inject": "false"}
MANAGER = "capnet.internal/pipelines"  # whose patches these are: a path below a domain, and .internal is nobody's
# what Kubeflow Pipelines tells its own pod: the run in MLflow, and the proxy, where the server has one
PROXY = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
HANDED_ON = ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_WORKSPACE", *PROXY)
# where the server has a CA bundle, its launcher sets them to a temporary file of the task's own pod
CERTIFICATES = ("REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE", "SSL_CERT_FILE")


class Nodes(BaseModel):
    """What the pipeline says about the nodes. Every one gets ``cpu``, ``memory`` and ``accelerator_count`` GPUs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    nodes: int = Field(ge=1, le=1000)
    processes_per_node: int = Field(default=0, ge=0, le=64)
    image: str
    runtime: str = Field(default=names.RUNTIME, min_length=1)  # NAME, or KIND/NAME
    accelerator_type: str = names.ACCELERATOR
    accelerator_count: int = Field(default=0, ge=0)
    cpu: str = "2"
    memory: str = "8Gi"
    shared_memory: str = "2Gi"
    node_selector: dict[str, str] = {}
    tolerations: list[dict[str, Any]] = []
    s3_secret: str = names.S3_SECRET
    mlflow_secret: str = names.MLFLOW_SECRET
    git_secret: str = names.GIT_SECRET
    state_claim: str = names.STATE_CLAIM
    data_claim: str = ""
    pull_secret: str = ""
    hours: float = Field(default=24.0, gt=0)
    start_minutes: float = Field(default=30.0, gt=0)

    @field_validator("tolerations", mode="before")
    @classmethod
    def _whole(cls, value: Any) -> Any:
        """Kubeflow Pipelines turns 300 into 300.0. A field that is null or "" is none, for Kubernetes; the models of
        Kubeflow Trainer refuse it.
        """
        return [
            {
                key: int(item) if isinstance(item, float) and item.is_integer() else item
                for key, item in one.items()
                if item not in (None, "")
            }
            for one in value
        ]

    @property
    def processes(self) -> int:
        """Processes of one node: one for each of its GPUs, or a single one where it has none."""
        return self.processes_per_node or max(1, self.accelerator_count)


@dataclass(frozen=True)
class TaskPod:
    """The pod that starts the TrainJob, which Kubernetes removes with it, and the ``state`` folder that all pods
    mount.
    """

    namespace: str
    pod: str
    uid: str
    account: str
    run: str
    state: Path

    @staticmethod
    def from_environment() -> TaskPod:
        """From the environment; raises ConfigError outside of a cluster."""
        pod, uid, namespace, account, run = (os.environ.get(name, "") for name in names.POD)
        namespace = namespace or names.pod_namespace()
        if not namespace:
            todo = (
                "run it on a cluster: python -m pipelines.submit training --nodes 2; here, `torchrun --nproc-per-node 2"
                " -m capnet.cli train`"
            )
            raise ConfigError("several nodes are for a pod of a cluster, and this is none", "CAPNET_NAMESPACE", todo)
        state = Path(os.environ.get("CAPNET_STATE") or names.STATE).absolute()
        return TaskPod(namespace, pod, uid, account, run or uid or pod, state)

    @property
    def owner(self) -> list[dict[str, Any]]:
        """This pod as owner; none where its uid is not known."""
        return [{"apiVersion": "v1", "kind": "Pod", "name": self.pod, "uid": self.uid}] if self.pod and self.uid else []


def settings_of(values: Mapping[str, Any], params: Params) -> Nodes:
    """``values`` checked, also against the batch; raises ConfigError naming everything that is wrong."""
    try:
        nodes = Nodes.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError(problems=problems_of(error, "options of the pipeline")) from None
    processes, batch_size = nodes.nodes * nodes.processes, params.train.batch_size
    if processes > batch_size:
        raise ConfigError(
            f"{processes} processes ({nodes.nodes} nodes with {nodes.processes} each) for batches of {batch_size}"
            " images",
            "train.batch_size, --nodes",
            "raise train.batch_size, which is that of all processes together, or ask for fewer nodes",
        )
    return nodes


def job_name(task_pod: TaskPod, seed: int) -> str:
    """The same for every try of one task of one run, so that a try finds what the one before it left."""
    return f"capnet-{hashlib.sha256(f'{task_pod.namespace}/{task_pod.run}'.encode()).hexdigest()[:10]}-s{seed}"


def train_job(name: str, folder: Path, nodes: Nodes, task_pod: TaskPod, threads: int) -> dict[str, Any]:
    """The TrainJob that trains with what lies in a folder.

    Args:
        name: of the TrainJob.
        folder: below the state folder.
        nodes: options of the TrainJob.
        task_pod: this task, whose account, namespace and volumes the nodes share.
        threads: of the CPU, for each process.

    Returns:
        The object for the API.

    Raises:
        ConfigError: Kubeflow Trainer refuses a value.
        CapnetError: it does not know a field.
    """
    kind, _, runtime = nodes.runtime.rpartition("/")
    labels = dict((names.LABEL, names.NODE_LABEL))
    gpus = {nodes.accelerator_type: str(nodes.accelerator_count)} if nodes.accelerator_count else {}
    trainer = {
        "image": nodes.image,
        # how many and where, it reads from PET_* variables
        "command": ["torchrun", "-m", "capnet.cluster.trainjob_node", str(folder)],
        "numNodes": nodes.nodes,
        "numProcPerNode": nodes.processes,
        "resourcesPerNode": {
            "requests": {"cpu": nodes.cpu, "memory": nodes.memory, **gpus},
            "limits": {"memory": nodes.memory, **gpus},
        },
    }
    job = {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "TrainJob",
        "metadata": {
            "name": name,
            "namespace": task_pod.namespace,
            "labels": labels,
            "annotations": {SETTINGS: hashlib.sha256(json.dumps(trainer).encode()).hexdigest()},
            **({"ownerReferences": task_pod.owner} if task_pod.owner else {}),
        },
        "spec": {
            "runtimeRef": {"apiGroup": GROUP, "kind": kind or "ClusterTrainingRuntime", "name": runtime},
            "activeDeadlineSeconds": int(nodes.hours * 3600),
            "trainer": {**trainer, "env": environment(folder, nodes, task_pod, threads)},
            "runtimePatches": [
                {
                    "manager": MANAGER,
                    "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": [pods(nodes, task_pod, labels)]}}},
                }
            ],
        },
    }
    return known(job)


def certificates() -> dict[str, Path]:
    """Files of certificates that the environment names, by variable; another pod need not have them."""
    files = {name: Path(os.environ.get(name, "")) for name in CERTIFICATES}
    return {name: path for name, path in files.items() if path.is_file()}


def environment(folder: Path, nodes: Nodes, task_pod: TaskPod, threads: int) -> list[dict[str, Any]]:
    """Plain values, and keys of secrets by reference; what a secret lacks stays unset.

    Args:
        folder: of the TrainJob, which has the certificates under their variables' names.
        nodes: with the secrets' names.
        task_pod: with the state folder.
        threads: of the CPU.

    Returns:
        Entries of a container's ``env``.
    """
    values = {"CAPNET_STATE": str(task_pod.state), "OMP_NUM_THREADS": str(threads)}
    values |= {name: os.environ[name] for name in HANDED_ON if os.environ.get(name)}
    values |= {name: str(folder / name) for name in certificates()}
    secrets = (
        (nodes.s3_secret, names.S3_KEYS),
        (nodes.git_secret, names.GIT_KEYS),
        (nodes.mlflow_secret, names.MLFLOW_KEYS),
    )
    plain = [{"name": name, "value": value} for name, value in values.items()]
    return plain + [
        {"name": key, "valueFrom": {"secretKeyRef": {"name": secret, "key": key, "optional": True}}}
        for secret, keys in secrets
        for key in keys
    ]


def pods(nodes: Nodes, task_pod: TaskPod, labels: Mapping[str, str]) -> dict[str, Any]:
    """What the pods get beyond the TrainJob's own fields: volumes, mount points, user, account, pull secret, the labels
    that network policies select. They get no sidecar of Istio: behind one the nodes would not find each other.

    Args:
        nodes: with the claims, and where pods may run.
        task_pod: with the state folder and the account.
        labels: of every pod.

    Returns:
        A replicated job of a ``trainingRuntimeSpec``.
    """
    volumes: dict[str, tuple[str, dict[str, Any]]] = {  # where each is mounted, and what it is
        "state": (str(task_pod.state), {"persistentVolumeClaim": {"claimName": nodes.state_claim}}),
        "shm": ("/dev/shm", {"emptyDir": {"medium": "Memory", "sizeLimit": nodes.shared_memory}}),
        "tmp": ("/tmp", {"emptyDir": {}}),
    }
    if nodes.data_claim:
        volumes["data"] = (names.DATA, {"persistentVolumeClaim": {"claimName": nodes.data_claim}})
    # the task's own user, which the server may have chosen: the nodes write to the task's folder
    user: dict[str, Any] = {"runAsUser": os.getuid()} if os.getuid() else {}
    spec: dict[str, Any] = {
        "securityContext": {"runAsNonRoot": True, **user, "seccompProfile": {"type": "RuntimeDefault"}},
        "volumes": [{"name": name, **volume} for name, (_, volume) in volumes.items()],
        "containers": [
            {
                "name": STEP,
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                "volumeMounts": [{"name": name, "mountPath": path} for name, (path, _) in volumes.items()],
            }
        ],
        **({"serviceAccountName": task_pod.account} if task_pod.account else {}),
        **({"imagePullSecrets": [{"name": nodes.pull_secret}]} if nodes.pull_secret else {}),
        **({"nodeSelector": nodes.node_selector} if nodes.node_selector else {}),
        **({"tolerations": nodes.tolerations} if nodes.tolerations else {}),
    }
    own = {"labels": {**labels, **NO_SIDECAR}}
    return {"name": STEP, "template": {"spec": {"template": {"metadata": own, "spec": spec}}}}


def known(job: dict[str, Any]) -> dict[str, Any]:
    """``job`` as Kubeflow Trainer's own models write it; raises ConfigError for a value that they refuse, and
    CapnetError for a field that they do not have.
    """
    from kubeflow_trainer_api.models import TrainerV1alpha1TrainJob

    try:
        parsed = TrainerV1alpha1TrainJob.from_dict(job)
    except ValueError as error:
        raise ConfigError(
            f"no TrainJob can be made of this: {error}", "options of the pipeline", "correct the value that is named"
        ) from None
    written: dict[str, Any] = parsed.to_dict() if parsed else {}
    if lost := sorted(paths(job) - paths(written)):
        raise CapnetError(
            f"Kubeflow Trainer does not know {', '.join(lost)}",
            "options of the pipeline",
            "see --tolerations for a misspelled name",
        )
    return written


def paths(value: Any, at: str = "") -> set[str]:
    """Where the plain values of nested mappings and lists are."""
    if isinstance(value, Mapping):
        return {path for key, item in value.items() for path in paths(item, f"{at}.{key}" if at else str(key))} or {at}
    if isinstance(value, list):
        return {path for number, item in enumerate(value) for path in paths(item, f"{at}[{number}]")} or {at}
    return {at}
