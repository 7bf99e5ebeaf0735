"""Kubeflow Trainer behind the Kubernetes API: TrainJobs are taken or refused as it does, and go through what a test
says.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from contract.kubernetes_rules import amount
from contract.kubernetes_server import Cluster, rule_allows
from contract.trainer_rules import Runtime, denied, unfit

SPACE, ACCOUNT = "kubeflow", "capnet-pipeline"
JOBS = f"/apis/trainer.kubeflow.org/v1alpha1/namespaces/{SPACE}/trainjobs"
PODS = f"/api/v1/namespaces/{SPACE}/pods"
VERBS = {"POST": "create", "PATCH": "patch", "DELETE": "delete"}
REFUSAL = 'admission webhook "validator.trainjob.trainer.kubeflow.org" denied the request: '

Moment = tuple[dict[str, Any], list[dict[str, Any]]]  # status of the TrainJob, its pods


def condition(kind: str, reason: str = "", message: str = "") -> dict[str, Any]:
    return {"conditions": [{"type": kind, "status": "True", "reason": reason or kind, "message": message}]}


def pod(
    name: str, node: int, phase: str, conditions: list[dict[str, Any]] | None = None, restarts: int = 0, **state: Any
) -> dict[str, Any]:
    """A pod as the API shows it; ``state`` and ``last`` are those of its container."""
    index = {"batch.kubernetes.io/job-completion-index": str(node)}
    container = {
        "name": "node",
        "state": {key: value for key, value in state.items() if key != "last"},
        "lastState": state.get("last", {}),
    }
    status = {
        "phase": phase,
        "conditions": conditions or [],
        "containerStatuses": [container | {"restartCount": restarts}],
    }
    return {
        "metadata": {"name": f"{name}-node-0-{node}-abcde", "labels": index | {"jobset.sigs.k8s.io/jobset-name": name}},
        "status": status,
    }


def canonical(quantity: str) -> str:
    """As Quantity.CanonicalizeBytes writes it (k8s.io/apimachinery, pkg/api/resource): the largest suffix that leaves a
    whole number.
    """
    binary = {f"{letter}i": 1024 ** (n + 1) for n, letter in enumerate("KMGTPE")}
    decimal = {letter: 1000 ** (n + 1) for n, letter in enumerate("kMGTPE")}
    thousandths = round(amount(quantity) * 1000)
    for suffix, factor in reversed((binary if quantity.endswith("i") else decimal).items()):
        if thousandths % (1000 * factor) == 0:
            return f"{thousandths // (1000 * factor)}{suffix}"
    return f"{thousandths // 1000}" if thousandths % 1000 == 0 else f"{thousandths}m"


@dataclass
class Trainer(Cluster):
    """A cluster with Kubeflow Trainer. ``play`` says what a TrainJob is like at its n-th look; the account may do what
    roles of the cluster say.
    """

    installed: bool = True
    old: bool = False  # before 2.2: fields that its CRD lacks are dropped without a word
    # manifests/base/runtimes/torch_distributed.yaml
    runtimes: Mapping[str, Runtime] = field(default_factory=lambda: {"torch-distributed": Runtime()})
    play: Callable[[dict[str, Any], int], Moment] = lambda job, look: ({}, [])
    lingers: int = 2  # looks that a removed TrainJob is still there
    logs: dict[int, str] = field(default_factory=dict)  # of a node
    made: list[dict[str, Any]] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    denied: list[str] = field(default_factory=list)
    looks: dict[str, int] = field(default_factory=dict)
    silence: int = 0  # requests that get one of the answers of `away`
    # no connection, and a server that restarts
    away: tuple[tuple[int, Any], ...] = ((0, None), (503, "the API server is restarting"))

    def more(self, verb: str, path: str, query: dict[str, list[str]], body: Any) -> tuple[int, Any] | None:
        if self.silence:
            self.silence -= 1
            return self.away[self.silence % len(self.away)]
        if (
            not path.startswith((JOBS, PODS))
            and not path.endswith("/events")
            and "/persistentvolumeclaims/" not in path
        ):
            return None
        if not self.may(verb, path):
            self.denied.append(f"{verb} {path}")
            return 403, f'{path} is forbidden: User "system:serviceaccount:{SPACE}:{ACCOUNT}" cannot do it'
        if path.endswith("/log"):
            assert query["container"] == ["node"]
            return 200, self.log(int(path.split("-node-0-")[1][0]), query)
        if path == PODS:
            (name,) = (
                item.partition("=")[2]
                for item in query["labelSelector"]
                if item.startswith("jobset.sigs.k8s.io/jobset-name=")
            )
            job = self.objects.get(f"{JOBS}/{name}")
            return 200, {"items": self.moment(job)[1] if job else []}
        if not path.startswith(JOBS):
            return None
        if not self.installed:
            return 404, "404 page not found"
        if verb == "POST":
            return self.create(body)
        job = self.objects.get(path)
        if job is None:
            return 404, f'trainjobs.trainer.kubeflow.org "{path.rpartition("/")[2]}" not found'
        if verb == "DELETE":
            assert query["propagationPolicy"] == ["Foreground"]
            job["metadata"].setdefault("deletionTimestamp", "2026-01-01T00:00:00Z")
            self.removed.append(job["metadata"]["name"])
        elif verb == "PATCH":
            changed = {key: job[key] | body.get(key, {}) for key in ("metadata", "spec")}
            if wrong := denied(changed, self.runtimes, job):
                return 403, REFUSAL + together(wrong)
            job |= changed
        elif "deletionTimestamp" in job["metadata"]:
            self.looks["removed"] = self.looks.get("removed", 0) + 1
            if self.looks["removed"] > self.lingers:
                del self.objects[path]
                return 404, "not found"
        else:
            name = job["metadata"]["name"]
            self.looks[name] = self.looks.get(name, -1) + 1
            job["status"] = self.moment(job)[0]
        return 200, job

    def create(self, body: dict[str, Any]) -> tuple[int, Any]:
        """As the API server does: the CRD's schema, the webhook, and whether there is one of this name."""
        from kubeflow_trainer_api.models import TrainerV1alpha1TrainJob

        model = TrainerV1alpha1TrainJob.from_dict(body)
        assert model is not None
        name, spec = body["metadata"]["name"], body["spec"]
        if wrong := unfit(body):
            return 422, f'TrainJob.trainer.kubeflow.org "{name}" is invalid: {together(wrong)}'
        if wrong := denied(body, self.runtimes):
            return 403, REFUSAL + together(wrong)
        if f"{JOBS}/{name}" in self.objects:
            return 409, f'trainjobs.trainer.kubeflow.org "{name}" already exists'
        if self.old:
            spec.pop("runtimePatches")
        body["metadata"]["uid"] = f"uid-{len(self.made)}"
        # its defaulting webhook writes the whole object again, and Go writes quantities in canonical form
        for kind, amounts in spec["trainer"]["resourcesPerNode"].items():
            spec["trainer"]["resourcesPerNode"][kind] = {key: canonical(value) for key, value in amounts.items()}
        self.objects[f"{JOBS}/{name}"] = body
        self.looks.pop(name, None)
        self.made.append(body)
        return 201, body

    def moment(self, job: dict[str, Any]) -> Moment:
        return (
            ({}, [])
            if "deletionTimestamp" in job["metadata"]
            else self.play(job, self.looks.get(job["metadata"]["name"], 0))
        )

    def log(self, node: int, query: dict[str, list[str]]) -> str:
        lines = self.logs.get(node, "").splitlines()
        if "timestamps" in query:
            stamped = [f"2026-01-01T00:00:{number:02}.000000000+08:00 {line}" for number, line in enumerate(lines)]
            lines = [line for line in stamped if f"{line[:19]}+08:00" >= query.get("sinceTime", [""])[0]]
            assert all(since.endswith("+08:00") for since in query.get("sinceTime", ())), (
                "a time zone east of ours would hide lines for hours"
            )
        return "\n".join(lines[-int(query["tailLines"][0]) :] if "tailLines" in query else lines)

    def may(self, verb: str, path: str) -> bool:
        """RBAC over the roles that the account is bound to."""
        group = "trainer.kubeflow.org" if path.startswith("/apis/trainer") else ""
        resource, *rest = path.partition(f"/namespaces/{SPACE}/")[2].split("/")
        name, part = [*rest, "", ""][:2]
        asked = {
            "group": group,
            "resource": resource,
            "subresource": part,
            "verb": VERBS.get(verb, "get" if name else "list"),
            "name": name,
        }
        roles = [item for path, item in self.objects.items() if "/roles/" in path]
        return any(rule_allows(rule, asked) for rule in itertools.chain.from_iterable(role["rules"] for role in roles))


def together(wrong: list[str]) -> str:
    """Several errors as Kubernetes writes them (k8s.io/apimachinery, pkg/util/errors, aggregate)."""
    return wrong[0] if len(wrong) == 1 else f"[{', '.join(dict.fromkeys(wrong))}]"


def containers(patch: dict[str, Any]) -> list[dict[str, Any]]:
    jobs = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    return [item for job in jobs for item in job["template"]["spec"]["template"]["spec"]["containers"]]
