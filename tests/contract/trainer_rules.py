"""What Kubeflow Trainer refuses of a TrainJob: the schema of its CRD, then its validating webhook.

Every rule names the file that it is read from.

The files are those of kubeflow/trainer v2.3.0; v2.2.0 has the same rules but for those that say 2.3. ``CRD`` stands for
pkg/apis/trainer/v1alpha1/trainjob_types.go, from which manifests/base/crds/trainer.kubeflow.org_trainjobs.yaml is made.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

GROUP = "trainer.kubeflow.org"
KINDS = ("ClusterTrainingRuntime", "TrainingRuntime")  # pkg/runtime/core/registry.go
MANAGED_BY = (f"{GROUP}/trainjob-controller", "kueue.x-k8s.io/multikueue")
# pkg/constants/constants.go, as are the names below
INITIALIZERS = {"dataset": "dataset-initializer", "model": "model-initializer"}
NO_ENVS = (*INITIALIZERS.values(), "node")
RESERVED = {
    "torch": {"PET_NNODES", "PET_NPROC_PER_NODE", "PET_NODE_RANK", "PET_MASTER_ADDR", "PET_MASTER_PORT"},
    # 2.3
    "mpi": {
        "OMPI_MCA_orte_default_hostfile",
        "OMPI_MCA_plm_rsh_args",
        "OMPI_MCA_orte_keep_fqdn_hostnames",
        "OMPI_MCA_orte_set_default_slots",
    },
    "xgboost": {"DMLC_TRACKER_URI", "DMLC_TRACKER_PORT", "DMLC_TASK_ID", "DMLC_NUM_WORKER"},
}
TUNED = ("llama3_2/1B", "llama3_2/3B", "llama3_3/70B", "qwen2_5/1.5B")
LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
QUANTITY = re.compile(r"[+-]?([0-9]+|[0-9]+\.[0-9]*|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?")


@dataclass(frozen=True)
class Runtime:
    """A training runtime, as far as the webhook looks at it."""

    kind: str = "ClusterTrainingRuntime"
    policy: str = "torch"  # which of torch, mpi, xgboost, flux its mlPolicy has
    # its jobs, and their containers
    jobs: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: {"node": ("node",)})
    mounts: frozenset[str] = frozenset()  # jobs whose container of the same name mounts the volume "initializer"


# ---------------------------------------------------------------- the CRD's schema


def unfit(job: dict[str, Any]) -> list[str]:
    """What the schema of the CRD refuses; the API server looks before the webhook does."""
    return list(_unfit(job))


def _unfit(job: dict[str, Any]) -> Iterator[str]:
    name, spec = job["metadata"]["name"], job["spec"]
    if not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name):  # CRD, TrainJob
        yield "metadata.name must match RFC 1035 DNS label format"
    if len(name) > 63:  # CRD, TrainJob
        yield "metadata.name must be no more than 63 characters"
    yield from length("spec.runtimeRef.name", spec["runtimeRef"].get("name", ""), 1, 253)  # CRD, RuntimeRef
    for key in ("apiGroup", "kind"):
        yield from length(f"spec.runtimeRef.{key}", spec["runtimeRef"].get(key, ""), 0, 253)
    if "activeDeadlineSeconds" in spec and spec["activeDeadlineSeconds"] < 1:  # CRD, TrainJobSpec
        yield "spec.activeDeadlineSeconds in body should be greater than or equal to 1"
    if spec.get("managedBy", MANAGED_BY[0]) not in MANAGED_BY:  # CRD, TrainJobSpec
        yield f"spec.managedBy must be {' or '.join(MANAGED_BY)} if set"
    # CRD, DatasetInitializer and ModelInitializer; the scheme 2.3
    for kind, initializer in (spec.get("initializer") or {}).items():
        address = initializer.get("storageUri", "")
        yield from length(f"spec.initializer.{kind}.storageUri", address, 0, 2048)
        if address and not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*://.+", address):
            yield f"spec.initializer.{kind}.storageUri may be empty, or it must be a valid URI (scheme://...)"
        yield from listed(f"spec.initializer.{kind}.env", initializer.get("env", ()), 128)
    yield from _trainer(spec.get("trainer") or {})
    patches = spec.get("runtimePatches", ())
    yield from listed("spec.runtimePatches", patches, 16, "manager")  # CRD, TrainJobSpec
    for number, patch in enumerate(patches):
        at = f"spec.runtimePatches[{number}]"
        yield from length(f"{at}.manager", patch.get("manager", ""), 1, 253)  # CRD, RuntimePatch
        yield from listed(f"{at}.replicatedJobs", jobs_of(patch), 100)  # CRD, JobSetSpecPatch
        for each in jobs_of(patch):
            yield from length(f"{at}.replicatedJobs.name", each.get("name", ""), 1, 253)  # CRD, ReplicatedJobPatch
            yield from _pods(at, pods_of(each))


def _trainer(trainer: dict[str, Any]) -> Iterator[str]:
    """CRD, Trainer."""
    yield from length("spec.trainer.image", trainer.get("image", ""), 0, 500)
    for key in ("command", "args"):
        words = trainer.get(key, ())
        yield from listed(f"spec.trainer.{key}", words, 128, "")
        for word in words:
            yield from length(f"spec.trainer.{key}", word, 0, 65536)  # 1048576 from 2.3 on
    yield from listed("spec.trainer.env", trainer.get("env", ()), 128)
    for key, amounts in (trainer.get("resourcesPerNode") or {}).items():
        for name, amount in amounts.items() if isinstance(amounts, dict) else ():  # the schema's pattern of a quantity
            if not QUANTITY.fullmatch(str(amount)):
                yield f"spec.trainer.resourcesPerNode.{key}.{name} in body should match '^(\\+|-)?(([0-9]+..."


def _pods(at: str, pod: dict[str, Any]) -> Iterator[str]:
    """CRD, PodSpecPatch and ContainerPatch."""
    yield from length(f"{at}.serviceAccountName", pod.get("serviceAccountName", ""), 0, 253)
    most = {"volumes": 128, "initContainers": 64, "containers": 64, "imagePullSecrets": 64, "schedulingGates": 16}
    for key, limit in most.items():
        yield from listed(f"{at}.{key}", pod.get(key, ()), limit)
    yield from listed(f"{at}.tolerations", pod.get("tolerations", ()), 128, "")
    if pod.get("terminationGracePeriodSeconds", 0) < 0:  # 2.3
        yield f"{at}.terminationGracePeriodSeconds in body should be greater than or equal to 0"
    for container in (*pod.get("initContainers", ()), *pod.get("containers", ())):
        yield from length(f"{at}.containers.name", container.get("name", ""), 1, 253)
        yield from listed(f"{at}.containers.env", container.get("env", ()), 128)
        yield from listed(f"{at}.containers.volumeMounts", container.get("volumeMounts", ()), 128)


def length(at: str, value: str, least: int, most: int) -> Iterator[str]:
    if len(value) < least:
        yield f"{at} in body should be at least {least} chars long"
    if len(value) > most:
        yield f"{at}: Too long: may not be more than {most} bytes"


def listed(at: str, items: Any, most: int, key: str = "name") -> Iterator[str]:
    """Not more than ``most``, and where the list is a map by ``key``, no two with the same one."""
    if len(items) > most:
        yield f"{at}: Too many: {len(items)}: must have at most {most} items"
    names = [item.get(key) for item in items] if key else []
    twice = sorted({str(name) for name in names if names.count(name) > 1})
    yield from (f'{at}: Duplicate value: {{"{key}":"{name}"}}' for name in twice)


# ---------------------------------------------------------------- the webhook


def denied(job: dict[str, Any], runtimes: Mapping[str, Runtime], old: dict[str, Any] | None = None) -> list[str]:
    """What the validating webhook refuses (pkg/webhooks/trainjob_webhook.go); ``old`` is what an update finds."""
    spec = job["spec"]
    reference = {"apiGroup": GROUP, "kind": KINDS[0]} | spec["runtimeRef"]  # the CRD's defaults
    if reference["apiGroup"] != GROUP or reference["kind"] not in KINDS:  # trainjob_webhook.go, ValidateCreate
        return [f"unsupported runtime: {reference['kind']}.{reference['apiGroup']}"]
    runtime = runtimes.get(reference["name"])
    # pkg/runtime/core/clustertrainingruntime.go and trainingruntime.go, ValidateObjects
    if runtime is None or runtime.kind != reference["kind"]:
        of_cluster = reference["kind"] == KINDS[0]
        path, word = ("RuntimeRef", "clusterTrainingRuntime") if of_cluster else ("runtimeRef", "trainingRuntime")
        missing = f'{reference["kind"]}.{GROUP} "{reference["name"]}" not found'
        missing += f": specified {word} must be created before the TrainJob is created"
        return [f"spec.{path}: Invalid value: {missing}"]
    return [*_jobset(spec, runtime, (old or {}).get("spec")), *_policy(spec, runtime)]


def _jobset(spec: dict[str, Any], runtime: Runtime, old: dict[str, Any] | None) -> Iterator[str]:
    """pkg/runtime/framework/plugins/jobset/jobset.go, Validate."""
    for kind in spec.get("initializer") or {}:
        name = INITIALIZERS[kind]
        if name not in runtime.jobs:
            yield invalid("runtimeRef", f"must have {name} job when trainJob is configured with input {kind}Config")
        elif name not in runtime.jobs[name]:
            yield invalid("runtimeRef", f"must have container with name - {name} in the {name} job")
        elif name not in runtime.mounts:  # 2.3
            mount = f"volumeMount with name - initializer in container {name} of the {name} job"
            yield invalid("runtimeRef", f"must have {mount}")
    changed = old is not None and old.get("runtimePatches") != spec.get("runtimePatches")
    if changed and not (spec.get("suspend") or (old or {}).get("suspend")):  # checkRuntimePatchesImmutability
        when = "when the TrainJob is suspended before or after the update"
        yield f"spec.runtimePatches: Forbidden: RuntimePatches can only be modified {when}"
    for patch in spec.get("runtimePatches", ()):
        yield from domain_prefixed("spec.runtimePatches.manager", patch["manager"])
        # the file's rules against jobs and containers that a runtime lacks are never reached: clustertrainingruntime.go
        # merges the patches in before, and a server of 2.3.0 takes them
        for job in jobs_of(patch):
            if any(one.get("env") and one["name"] in NO_ENVS for one in pods_of(job).get("containers", ())):
                yield invalid("runtimePatches", f"must not have envs for the {', '.join(NO_ENVS)} containers")


def invalid(path: str, rule: str) -> str:
    return f"spec.{path}: Invalid value: {rule}"


def domain_prefixed(at: str, value: str) -> Iterator[str]:
    """k8s.io/apimachinery v0.36.2, pkg/util/validation/validation.go, IsDomainPrefixedPath; called by jobset.go."""
    if not value:
        yield f"{at}: Required value"
        return
    host, _, path = value.partition("/")
    if not host or not path:
        yield f'{at}: Invalid value: "{value}": must be a domain-prefixed path (such as "acme.io/foo")'
        return
    if len(host) > 253 or not re.fullmatch(rf"{LABEL}(\.{LABEL})*", host):
        rule = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters"
        yield f'{at}: Invalid value: "{host}": {rule}'
    if not re.fullmatch(r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+", path):
        yield f'{at}: Invalid value: "{path}": Invalid path'


def _policy(spec: dict[str, Any], runtime: Runtime) -> Iterator[str]:
    """pkg/runtime/framework/plugins: torch/torch.go, mpi/mpi.go, xgboost/xgboost.go, flux/flux.go, Validate.

    Left out: QLoRA's and LoRA's rules (torch/torchtune.go), and those of a runtime that is wrong in itself
    (flux-installer, envInjection, Volcano's queue and priority class).
    """
    trainer = spec.get("trainer") or {}
    reserved = {item["name"] for item in trainer.get("env", ())} & RESERVED.get(runtime.policy, set())
    if reserved:
        yield invalid("trainer.env", f"must not have reserved envs, invalid envs configured: {sorted(reserved)}")
    if runtime.policy == "torch" and trainer.get("command") == ["tune", "run"]:  # torchtune.go, validateTorchTune
        parts = spec["runtimeRef"]["name"].split("-")  # getModelFromRuntimeRef
        model = f"{parts[1].replace('.', '_')}/{parts[2].upper()}" if len(parts) == 3 else ""
        if model not in TUNED:
            rule = "must have a supported pretrained model"
            yield invalid("runtimeRef.name", f"{rule}, invalid model configured: {model}")
        if trainer.get("numNodes", 1) > 1 and model != "llama3_3/70B":
            yield invalid("trainer.numNodes", f"must be 1 for {model} model")
    short = not {"launcher", "node"} <= set(runtime.jobs)
    if runtime.policy == "mpi" and trainer.get("numNodes", 1) >= 2 and short:  # with runLauncherAsNode
        lacks = "with enabled runLauncherAsNode does not have either launcher and node"
        yield invalid("trainer.numNodes", f"must have 1 when MPI trainingRuntime {lacks}")
    if runtime.policy == "flux" and trainer.get("numProcPerNode", 1) < 1:
        yield invalid("trainer.numProcPerNode", "must be greater than or equal to 1 for Flux TrainJob")


def jobs_of(patch: dict[str, Any]) -> list[dict[str, Any]]:
    result: list[dict[str, Any]] = inside(patch, "trainingRuntimeSpec", "template", "spec").get("replicatedJobs") or []
    return result


def pods_of(job: dict[str, Any]) -> dict[str, Any]:
    return inside(job, "template", "spec", "template", "spec")


def inside(value: dict[str, Any], *keys: str) -> dict[str, Any]:
    for key in keys:
        value = value.get(key) or {}
    return value
