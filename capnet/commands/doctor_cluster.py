"""`capnet doctor --cluster`: does a cluster have what the pipelines' pods need. Asks the Kubernetes API only, and shows
no value of a secret.
"""

from __future__ import annotations

import base64
import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from capnet.cluster import names as cluster
from capnet.cluster.kubernetes_api import ClusterError, Kubernetes, NotAllowed, NotThere
from capnet.cluster.names import GIT_KEYS, MLFLOW_KEYS, S3_KEYS, on_volume, unseen
from capnet.commands.doctor import Finding
from capnet.commands.doctor_nodes import check_trainer
from capnet.errors import Problem

DEADLINE = 8.0  # for all checks, once the API has answered
# annotations that give an account a cloud's role
ROLES = ("eks.amazonaws.com/role-arn", "iam.gke.io/gcp-service-account", "azure.workload.identity/client-id")
RIGHTS = (  # group, resource, verb, name: what KFP's driver and launcher do with the account of a pod
    ("argoproj.io", "workflowtaskresults", "create", ""),
    ("argoproj.io", "workflowtaskresults", "patch", ""),
    ("argoproj.io", "workflowtasksets", "list", ""),
    ("argoproj.io", "workflowtasksets", "watch", ""),
    ("argoproj.io", "workflowtasksets/status", "patch", ""),
    ("", "configmaps", "get", "kfp-launcher"),
    ("", "secrets", "get", "mlpipeline-minio-artifact"),
    ("", "pods", "get", ""),
    ("", "pods", "list", ""),
    ("", "pods", "watch", ""),
)
DEPLOY = "make deploy, or kubectl apply -k deploy/overlays/standalone"


@dataclass(frozen=True)
class Wanted:
    """What a run will use; the names are those of `python -m pipelines.submit`. ``root`` is data.root, ``anonymous``
    data.anonymous.
    """

    root: str
    anonymous: bool = False
    namespace: str = cluster.NAMESPACE
    kfp_namespace: str = cluster.NAMESPACE
    service_account: str = cluster.SERVICE_ACCOUNT
    s3_secret: str = cluster.S3_SECRET
    mlflow_secret: str = cluster.MLFLOW_SECRET
    git_secret: str = cluster.GIT_SECRET
    state_claim: str = cluster.STATE_CLAIM
    data_claim: str = cluster.DATA_CLAIM
    accelerator_type: str = cluster.ACCELERATOR
    accelerator_count: int = 0
    nodes: int = 1
    training_runtime: str = cluster.RUNTIME

    def place(self, kind: str, name: str) -> str:
        return f"{kind} {name}, namespace {self.namespace}"


def cluster_checks(wanted: Wanted) -> dict[str, Callable[[], Iterable[Finding]]]:
    """The checks by name, to be run side by side; raises ClusterError where the API does not answer at all."""
    api = Kubernetes()
    version = api.get("/version").get("gitVersion", "of unknown version")
    answer = Finding("cluster", f"Kubernetes {version} at {api.host}, namespace {wanted.namespace}")
    several = {"nodes": partial(check_trainer, api, wanted)} if wanted.nodes > 1 else {}
    return {
        "cluster": partial(check_namespace, api, wanted, answer),
        "pictures": partial(check_images, wanted),
        "secrets": partial(check_secrets, api, wanted),
        "volumes": partial(check_claims, api, wanted),
        "account": partial(check_account, api, wanted),
        "gpu": partial(check_nodes, api, wanted),
        **several,
        "pipelines": partial(check_pipelines, api, wanted),
    }


def check_namespace(api: Kubernetes, wanted: Wanted, answer: Finding) -> Iterable[Finding]:
    """The server's version, and whether the namespace is there."""
    try:
        api.get(f"/api/v1/namespaces/{wanted.namespace}")
    except NotAllowed:
        pass  # whoever may not see namespaces may see what is in them
    except NotThere:
        yield Finding(
            "cluster",
            "",
            Problem(
                f"there is no namespace {wanted.namespace}",
                api.host,
                "install Kubeflow Pipelines, or name yours: --namespace",
            ),
        )
        return
    yield answer


def check_images(wanted: Wanted) -> Iterable[Finding]:
    """Whether pods can see what data.root names."""
    if kind(wanted.root) == "folder" and not on_volume(wanted.root):
        yield Finding("pictures", "", unseen(wanted.root))
        return
    yield Finding(
        "pictures", f"data.root is {wanted.root}" + (": submit with --data-volume" if on_volume(wanted.root) else "")
    )


def check_secrets(api: Kubernetes, wanted: Wanted) -> Iterable[Finding]:
    """Each secret: is it there, has it what is needed, are its keys spelled right and their values free of stray line
    breaks.
    """
    source = kind(wanted.root)
    role = source == "s3" and (wanted.anonymous or has_role(api, wanted))
    pairs = {
        wanted.s3_secret: (S3_KEYS, ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), source == "s3" and not role),
        wanted.mlflow_secret: (MLFLOW_KEYS, ("MLFLOW_TRACKING_URI",), True),
        wanted.git_secret: (GIT_KEYS, ("GIT_USERNAME", "GIT_PASSWORD"), False),
    }
    for name, (known, basic, needed) in pairs.items():
        where = wanted.place("secret", name)
        about = f"secret {name}"
        fill = f"fill in deploy/secrets/{name}.env, then kubectl apply --server-side -k deploy/secrets"
        try:
            data = api.get(f"/api/v1/namespaces/{wanted.namespace}/secrets/{name}").get("data") or {}
        except NotThere:
            unread = (
                "only public repositories can be read"
                if source == "git" and name == wanted.git_secret
                else "not needed"
            )
            yield Finding(
                about,
                f"not there; {unread} for data.root = {wanted.root}",
                Problem(f"there is no secret {name}", where, fill) if needed else None,
            )
            continue
        except NotAllowed as error:
            yield Finding(about, "", error.problems[0])
            continue
        problems = list(wrong_keys(data, known, basic, needed))
        for what in problems:
            yield Finding(about, "", Problem(what, where, fill))
        if not problems:
            yield Finding(
                about, f"has {', '.join(key for key in known if key in data) or 'no key, and none is needed'}"
            )


def wrong_keys(data: Mapping[str, str], known: tuple[str, ...], basic: tuple[str, ...], needed: bool) -> Iterable[str]:
    """What is wrong with the keys of a secret, without any of its values."""
    for key in sorted(data.keys() - set(known)):
        near = difflib.get_close_matches(key, known, 1, 0.7)
        yield f"no task reads the key {key}" + (
            f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}"
        )
    present = [key for key in basic if key in data]
    for key in basic:
        if key not in data and (needed or present):
            yield f"the key {key} is missing"
    for key in known:
        value = base64.b64decode(data.get(key) or "")
        if key in data and not value:
            yield f"the key {key} is empty, and would hide what a pod has from elsewhere"
        elif value != value.strip():
            yield f"the value of {key} begins or ends with a blank or a line break"


def check_claims(api: Kubernetes, wanted: Wanted) -> Iterable[Finding]:
    """The volume claims: bound, or waiting for their first pod as their storage class wishes."""
    names = [wanted.state_claim, *([wanted.data_claim] if on_volume(wanted.root) else [])]
    for name in names:
        about, where = f"claim {name}", wanted.place("claim", name)
        try:
            claim = api.get(f"/api/v1/namespaces/{wanted.namespace}/persistentvolumeclaims/{name}")
        except NotThere:
            more = ", or submit with --no-state-volume" if name == wanted.state_claim else ""
            yield Finding(about, "", Problem(f"there is no claim {name}", where, DEPLOY + more))
            continue
        modes, phase = claim["spec"].get("accessModes", []), claim.get("status", {}).get("phase", "unknown")
        one = (
            "" if "ReadWriteMany" in modes else f"; {', '.join(modes)}: pods that use it at the same time share a node"
        )
        if phase == "Bound":
            yield Finding(about, f"bound, {claim['status'].get('capacity', {}).get('storage', 'size unknown')}{one}")
        elif phase == "Pending" and waits(api, claim):
            yield Finding(about, f"waits for its first pod, as its storage class wishes{one}")
        else:
            said = api.last_event(wanted.namespace, "PersistentVolumeClaim", name)
            todo = (
                f"kubectl -n {wanted.namespace} describe pvc {name}; a storage class that the cluster has goes into an"
                " overlay"
            )
            yield Finding(about, "", Problem(f"claim {name} is {phase}{f': {said}' if said else ''}", where, todo))


def check_account(api: Kubernetes, wanted: Wanted) -> Iterable[Finding]:
    """Whether the tasks' service account is there and may do what KFP does with it."""
    name = wanted.service_account
    about, where = f"service account {name}", wanted.place("service account", name)
    try:
        api.get(f"/api/v1/namespaces/{wanted.namespace}/serviceaccounts/{name}")
    except NotThere:
        yield Finding(
            about,
            "",
            Problem(f"there is no service account {name}", where, f"{DEPLOY}; or name another: --service-account"),
        )
        return
    try:
        lacking = [right for right in RIGHTS if not api.may(name, wanted.namespace, right)]
    except NotAllowed:
        yield Finding(about, "is there; its rights were not checked, because you may not ask for those of others")
        return
    for group, resource, verb, item in lacking:
        what = f"{name} may not {verb} {resource}{f' {item}' if item else ''}{f' of {group}' if group else ''}"
        yield Finding(about, "", Problem(what, where, f"{DEPLOY}; or name an account that may: --service-account"))
    if not lacking:
        yield Finding(about, f"may do all {len(RIGHTS)} things that a task needs")


def check_nodes(api: Kubernetes, wanted: Wanted) -> Iterable[Finding]:
    """Whether a ready node has the accelerators; a problem only where the run asks for some."""
    resource, count = wanted.accelerator_type, max(1, wanted.accelerator_count)
    try:
        nodes = api.get("/api/v1/nodes")["items"]
    except NotAllowed:
        yield Finding("gpu", "not checked, because you may not see nodes")
        return
    fit = [
        node for node in nodes if int(node["status"].get("allocatable", {}).get(resource, 0)) >= count and ready(node)
    ]
    if not fit:
        most = max((int(node["status"].get("allocatable", {}).get(resource, 0)) for node in nodes), default=0)
        what = f"no ready node of {len(nodes)} has {count} {resource}; the most that one has is {most}"
        todo = "install the device plugin of the GPU's maker, add a node, or ask for fewer"
        problem = Problem(what, "nodes", todo) if wanted.accelerator_count else None
        yield Finding("gpu", f"none: {resource} is on no ready node, so tasks run on the CPU", problem)
        return
    taints = sorted(
        {
            f"{item['key']}:{item['effect']}"
            for node in fit
            for item in node["spec"].get("taints", ())
            if item["effect"] != "PreferNoSchedule"
        }
    )
    note = f"; some are tainted ({', '.join(taints)}): give --tolerations" if taints else ""
    yield Finding("gpu", f"{len(fit)} of {len(nodes)} nodes have {resource}{note}")


def check_pipelines(api: Kubernetes, wanted: Wanted) -> Iterable[Finding]:
    """Whether Kubeflow Pipelines answers, asked through the Kubernetes API so that no port-forward is needed."""
    where = f"service ml-pipeline, namespace {wanted.kfp_namespace}"
    try:
        answer = api.get(
            f"/api/v1/namespaces/{wanted.kfp_namespace}/services/ml-pipeline:8888/proxy/apis/v2beta1/healthz"
        )
    except NotAllowed:
        yield Finding(
            "pipelines", "not checked, because you may not go through the API to a service; pipelines.submit tells"
        )
        return
    except NotThere:
        yield Finding(
            "pipelines",
            "",
            Problem(
                "Kubeflow Pipelines is not there",
                where,
                "install it (docs/on-kubernetes.md), or say where: --kfp-namespace",
            ),
        )
        return
    except ClusterError as error:
        said = error.problems[0].what
        todo = (
            f"kubectl -n {wanted.kfp_namespace} get pods; kubectl -n {wanted.kfp_namespace} logs deployment/ml-pipeline"
        )
        yield Finding("pipelines", "", Problem(f"Kubeflow Pipelines does not answer: {said}", where, todo))
        return
    if answer.get("multi_user") and wanted.namespace == wanted.kfp_namespace:
        what = "this Kubeflow has profiles, and runs nothing in its own namespace"
        yield Finding("pipelines", "", Problem(what, where, "name your profile: --namespace"))
        return
    yield Finding("pipelines", f"Kubeflow Pipelines {answer.get('tag_name') or 'of unknown version'} answers")


def kind(root: str) -> str:
    from capnet.data.sources.root import kind_of

    return kind_of(root)


def has_role(api: Kubernetes, wanted: Wanted) -> bool:
    """Whether the account has a role of a cloud, which stands in for keys."""
    try:
        account = api.get(f"/api/v1/namespaces/{wanted.namespace}/serviceaccounts/{wanted.service_account}")
    except ClusterError:
        return False
    return bool(set(ROLES) & (account["metadata"].get("annotations") or {}).keys())


def ready(node: Mapping[str, Any]) -> bool:
    conditions = {item["type"]: item["status"] for item in node["status"].get("conditions", ())}
    return conditions.get("Ready") == "True" and not node["spec"].get("unschedulable")


def waits(api: Kubernetes, claim: Mapping[str, Any]) -> bool:
    """Whether the claim's storage class binds it only once a pod uses it."""
    name = claim["spec"].get("storageClassName")
    try:
        return (
            bool(name)
            and api.get(f"/apis/storage.k8s.io/v1/storageclasses/{name}").get("volumeBindingMode")
            == "WaitForFirstConsumer"
        )
    except ClusterError:
        return False
