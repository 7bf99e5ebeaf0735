"""`capnet doctor --cluster --nodes N`: does the cluster have what training on several nodes needs beyond the rest."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from capnet.cluster.kubernetes_api import Kubernetes, NotAllowed, NotThere
from capnet.cluster.names import on_volume
from capnet.commands.doctor import Finding
from capnet.errors import Problem

if TYPE_CHECKING:
    from capnet.commands.doctor_cluster import Wanted

TRAINER = "/apis/trainer.kubeflow.org/v1alpha1"
RIGHTS = (  # group, resource, verb, name: what task train does with its account
    ("trainer.kubeflow.org", "trainjobs", "create", ""),
    ("trainer.kubeflow.org", "trainjobs", "get", ""),
    ("trainer.kubeflow.org", "trainjobs", "patch", ""),
    ("trainer.kubeflow.org", "trainjobs", "delete", ""),
    ("", "pods", "list", ""),
    ("", "pods/log", "get", ""),
    ("", "events", "list", ""),
    ("", "persistentvolumeclaims", "get", ""),
)
DEPLOY = "make deploy FOLDER=overlays/nodes"
DOCS = "docs/on-kubernetes.md, Several nodes"


def check_trainer(api: Kubernetes, wanted: Wanted) -> Iterable[Finding]:
    """Whether Kubeflow Trainer is there, with the runtime, and with a state volume and an account that fit."""
    about = "training on several nodes"
    try:
        api.get(TRAINER)
    except NotThere:
        yield Finding(
            about, "", Problem("Kubeflow Trainer is not there", api.host, f"install it, 2.2 or newer ({DOCS})")
        )
        return
    found = [problem for problem in (runtime(api, wanted), *volumes(api, wanted), *rights(api, wanted)) if problem]
    yield from (Finding(about, "", problem) for problem in found)
    if not found:
        yield Finding(
            about,
            f"Kubeflow Trainer with runtime {wanted.training_runtime}, a volume for all nodes, and the rights to start"
            f" {wanted.nodes}",
        )


def runtime(api: Kubernetes, wanted: Wanted) -> Problem | None:
    kind, _, name = wanted.training_runtime.rpartition("/")
    place = (
        f"{TRAINER}/namespaces/{wanted.namespace}/trainingruntimes"
        if kind == "TrainingRuntime"
        else f"{TRAINER}/clustertrainingruntimes"
    )
    try:
        api.get(f"{place}/{name}")
    except NotAllowed:
        return None
    except NotThere:
        todo = f"install the runtimes of Kubeflow Trainer ({DOCS}), or name one that is there: --training-runtime"
        return Problem(f"there is no training runtime {name}", f"{kind or 'ClusterTrainingRuntime'}s", todo)
    return None


def volumes(api: Kubernetes, wanted: Wanted) -> Iterable[Problem]:
    """The claims that all nodes mount; a claim that is not there is told by another check."""
    for name, enough in (
        (wanted.state_claim, {"ReadWriteMany"}),
        *([(wanted.data_claim, {"ReadWriteMany", "ReadOnlyMany"})] if on_volume(wanted.root) else []),
    ):
        try:
            modes = api.get(f"/api/v1/namespaces/{wanted.namespace}/persistentvolumeclaims/{name}")["spec"].get(
                "accessModes", []
            )
        except (NotThere, NotAllowed):
            continue
        if not enough & set(modes):
            what = f"claim {name} is {', '.join(modes) or 'of no mode'}: several nodes cannot mount it"
            yield Problem(
                what, wanted.place("claim", name), f"delete it, and make it anew as ReadWriteMany: {DEPLOY} ({DOCS})"
            )


def rights(api: Kubernetes, wanted: Wanted) -> Iterable[Problem]:
    name = wanted.service_account
    try:
        lacking = [right for right in RIGHTS if not api.may(name, wanted.namespace, right)]
    except NotAllowed:
        return
    for group, resource, verb, _ in lacking:
        what = (
            f"{name} may not {verb} {resource}{f' of {group}' if group else ''}, which training on several nodes takes"
        )
        yield Problem(what, wanted.place("service account", name), DEPLOY)
