"""Would the cluster take the pod of a task: the API is asked and makes none (a dry run)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from capnet.cluster import names
from capnet.cluster.kubernetes_api import Kubernetes, NotAllowed, NotThere, Refused
from capnet.commands.doctor.findings import Finding, Needs, wrong

NO_DRY_RUN = "does not support dry run"  # of a webhook
# of webhooks, which may look for a registry or a signature that this pod has not; quotas that others use up for now
FOR_THIS_POD = ("denied the request", "exceeded quota")


def check_pods(api: Kubernetes, needs: Needs) -> Iterable[Finding]:
    """Whether quotas, limit ranges, pod security and webhooks of the namespace let the pods of tasks in."""
    about, space = "pods", needs.namespace
    gpus = {needs.accelerator_type: str(needs.accelerator_count)} if needs.accelerator_count else {}
    memory = {"memory": needs.memory, **gpus}
    findings = []
    for task, resources in (
        ("train", {"requests": {"cpu": needs.cpu, **memory}, "limits": memory}),
        ("split, which asks for nothing", {}),
    ):
        try:
            api.create(f"/api/v1/namespaces/{space}/pods", task_pod(resources), dryRun="All")
        except NotAllowed:
            yield Finding(
                about, "whether the cluster takes those of tasks is not checked, because you may not make any"
            )
            return
        except NotThere:
            yield Finding(about, f"not checked, because there is no namespace {space}")
            return
        except Refused as error:
            message = re.sub(r'^\w+ "[^"]*" is (forbidden|invalid): ', "", error.problems[0].what)
            if NO_DRY_RUN in message:
                yield Finding(about, f"not checked: {message}")
                return
            findings.append(refused(needs, task, message))
    yield from findings or [Finding(about, f"a task with {needs.cpu} CPUs and {needs.memory} of memory is taken")]


def refused(needs: Needs, task: str, message: str) -> Finding:
    """What the cluster has against the pod of a task."""
    what = f"the cluster refuses a pod like that of task {task}: {message}"
    see = f"kubectl -n {needs.namespace} describe limitrange,resourcequota"
    todo = f"see {see}, and docs/on-kubernetes.md, A pod is refused"
    if any(words in message for words in FOR_THIS_POD):
        return Finding("pods", what, warning=todo)
    return wrong("pods", what, f"namespace {needs.namespace}", todo)


def task_pod(resources: Mapping[str, Any]) -> dict[str, Any]:
    """A pod that asks for these resources, hardened as Kubeflow Pipelines does it."""
    container = {
        "name": "main",
        "image": "capnet-train:doctor",
        "resources": resources,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "capnet-doctor-", "labels": dict([names.LABEL])},
        "spec": {"restartPolicy": "Never", "containers": [container]},
    }
