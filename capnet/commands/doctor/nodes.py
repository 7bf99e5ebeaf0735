"""`capnet doctor --cluster --nodes N`: does the cluster have what training on several nodes needs beyond the rest."""

from __future__ import annotations

from collections.abc import Iterable

from capnet.cluster.kubernetes_api import Kubernetes, NotAllowed, NotThere
from capnet.cluster.names import on_volume
from capnet.commands.doctor.findings import Finding, Needs, wrong
from capnet.errors import Problem

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


def check_trainer(api: Kubernetes, needs: Needs) -> Iterable[Finding]:
    """Whether Kubeflow Trainer is installed, with the runtime, and with a state volume and an account that fit."""
    about = "training on several nodes"
    try:
        api.get(TRAINER)
    except NotThere:
        yield wrong(about, "Kubeflow Trainer is not there", api.host, f"install it, 2.2 or newer ({DOCS})")
        return
    problems = [*runtime(api, needs), *volumes(api, needs), *rights(api, needs)]
    yield from (Finding(about, "", problem) for problem in problems)
    if not problems:
        parts = f"runtime {needs.training_runtime}, a volume for all nodes, and the rights to start {needs.nodes}"
        yield Finding(about, f"Kubeflow Trainer with {parts}")


def runtime(api: Kubernetes, needs: Needs) -> Iterable[Problem]:
    kind, _, name = needs.training_runtime.rpartition("/")
    path = f"{TRAINER}/clustertrainingruntimes/{name}"
    if kind == "TrainingRuntime":
        path = f"{TRAINER}/namespaces/{needs.namespace}/trainingruntimes/{name}"
    try:
        api.get(path)
    except NotAllowed:
        pass
    except NotThere:
        todo = f"install the runtimes of Kubeflow Trainer ({DOCS}), or name an installed one: --training-runtime"
        yield Problem(f"there is no training runtime {name}", f"{kind or 'ClusterTrainingRuntime'}s", todo)


def volumes(api: Kubernetes, needs: Needs) -> Iterable[Problem]:
    """The claims that all nodes mount; another check reports a claim that does not exist."""
    claims = {needs.state_claim: {"ReadWriteMany"}}
    if on_volume(needs.root):
        claims[needs.data_claim] = {"ReadWriteMany", "ReadOnlyMany"}
    for name, enough in claims.items():
        try:
            claim = api.get(f"/api/v1/namespaces/{needs.namespace}/persistentvolumeclaims/{name}")
        except (NotThere, NotAllowed):
            continue
        modes = claim["spec"].get("accessModes", [])
        if not enough & set(modes):
            what = f"claim {name} is {', '.join(modes) or 'of no mode'}: several nodes cannot mount it"
            todo = f"delete it, and create it again as ReadWriteMany: {DEPLOY} ({DOCS})"
            yield Problem(what, needs.where("claim", name), todo)


def rights(api: Kubernetes, needs: Needs) -> Iterable[Problem]:
    name = needs.service_account
    try:
        lacking = [right for right in RIGHTS if not api.may(name, needs.namespace, right)]
    except NotAllowed:
        return
    for group, resource, verb, _ in lacking:
        right = f"{verb} {resource}{f' of {group}' if group else ''}"
        what = f"{name} may not {right}, which training on several nodes takes"
        yield Problem(what, needs.where("service account", name), DEPLOY)
