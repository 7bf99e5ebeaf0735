"""Does a cluster have what the pipelines' pods need: `capnet doctor --cluster`. Asks the Kubernetes API only, and shows
no value of a secret.
"""

from __future__ import annotations

import base64
import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from capnet.cluster import names
from capnet.cluster.kubernetes_api import ClusterError, Kubernetes, NotAllowed, NotThere, whole
from capnet.cluster.names import NAMESPACE, on_volume, unseen
from capnet.commands.doctor import nodes as train_nodes
from capnet.commands.doctor.admission import check_pods
from capnet.commands.doctor.findings import Checks, Finding, Needs, wrong
from capnet.commands.doctor.platform import (
    check_network,
    check_pipelines,
    check_pull_secret,
    check_retries,
    store_secret,
    volume_nodes,
)
from capnet.data.sources.root import kind_of
from capnet.errors import Problem

DEADLINE = 8.0  # for all checks, once the API has answered
ROLE = "eks.amazonaws.com/role-arn"  # the annotation that gives an account a role with which boto3 opens S3
RIGHTS = (  # group, resource, verb, name: what KFP's driver and launcher do with the account of a pod
    ("argoproj.io", "workflowtaskresults", "create", ""),
    ("argoproj.io", "workflowtaskresults", "patch", ""),
    ("", "configmaps", "get", "kfp-launcher"),
    ("", "secrets", "get", "mlpipeline-minio-artifact"),
    ("", "pods", "get", ""),
    ("", "pods", "list", ""),
    ("", "pods", "watch", ""),
)
DEPLOY = "make deploy, or kubectl apply -k deploy/overlays/standalone"
OVERLAY = "name it in the role, in an overlay of yours (docs/on-kubernetes.md, Secrets)"


class Keys(NamedTuple):
    """A secret's ``usual`` name, keys that tasks read, the ``basic`` ones of these, and whether these are needed."""

    usual: str
    known: tuple[str, ...]
    basic: tuple[str, ...]
    needed: bool


def cluster_checks(needs: Needs) -> Checks:
    """The checks by name, to be run side by side; raises ClusterError where the API does not answer at all."""
    api = Kubernetes()
    version = api.get("/version").get("gitVersion", "of unknown version")
    answer = Finding("cluster", f"Kubernetes {version} at {api.host}, namespace {needs.namespace}")
    several = {"nodes": partial(train_nodes.check_trainer, api, needs)} if needs.nodes > 1 else {}
    private = {"pull secret": partial(check_pull_secret, api, needs)} if needs.pull_secret else {}
    return {
        "cluster": partial(check_namespace, api, needs, answer),
        "images": partial(check_images, needs),
        "secrets": partial(check_secrets, api, needs),
        **private,
        "volumes": partial(check_claims, api, needs),
        "account": partial(check_account, api, needs),
        "pods": partial(check_pods, api, needs),
        "gpu": partial(check_gpus, api, needs),
        **several,
        "pipelines": partial(check_pipelines, api, needs),
        "retries": partial(check_retries, api, needs),
        "network": partial(check_network, api, needs),
    }


def check_namespace(api: Kubernetes, needs: Needs, answer: Finding) -> Iterable[Finding]:
    """The server's version, and whether the namespace exists; the usual one is of no use to a profile."""
    path = f"/api/v1/namespaces/{needs.namespace}"
    exists = api.exists(path)  # None: what is in it may still be seen
    if exists is False:
        todo = "install Kubeflow Pipelines, or name yours: --namespace"
        yield wrong("cluster", f"there is no namespace {needs.namespace}", api.host, todo)
    elif (
        exists is None and needs.namespace == NAMESPACE and api.exists(f"{path}/secrets/{needs.mlflow_secret}") is None
    ):
        yield replace(answer, warning="you may see nothing in it; if Kubeflow has profiles, name yours: --namespace")
    else:
        yield answer


def check_images(needs: Needs) -> Iterable[Finding]:
    """Whether pods can read what data.root names."""
    mounted = on_volume(needs.root)
    if kind_of(needs.root) == "folder" and not mounted:
        yield Finding("images", "", unseen(needs.root))
        return
    yield Finding("images", f"data.root is {needs.root}" + (": submit with --data-volume" if mounted else ""))


def check_secrets(api: Kubernetes, needs: Needs) -> Iterable[Finding]:
    """Each secret: does it exist, has it the keys that tasks need, are these spelled right and free of stray blanks."""
    source = kind_of(needs.root)
    keys = source == "s3" and not needs.anonymous and not has_role(api, needs)
    secrets: dict[str, list[Keys]] = {}  # of one name, where one secret serves for several
    for name, kind in (
        (needs.s3_secret, Keys(names.S3_SECRET, names.S3_KEYS, ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), keys)),
        (needs.mlflow_secret, Keys(names.MLFLOW_SECRET, names.MLFLOW_KEYS, ("MLFLOW_TRACKING_URI",), True)),
        (needs.git_secret, Keys(names.GIT_SECRET, names.GIT_KEYS, ("GIT_USERNAME", "GIT_PASSWORD"), False)),
    ):
        secrets.setdefault(name, []).append(kind)
    for name, kinds in secrets.items():
        about, where = f"secret {name}", needs.where("secret", name)
        fill = how_to_fill(needs, name, [kind.usual for kind in kinds])
        try:
            data = api.get(f"/api/v1/namespaces/{needs.namespace}/secrets/{name}").get("data") or {}
        except NotThere:
            without = "not needed"
            if source == "git" and name == needs.git_secret:
                without = "only public repositories can be read"
            needed = any(kind.needed for kind in kinds)
            problem = Problem(f"there is no secret {name}", where, fill) if needed else None
            yield Finding(about, f"does not exist; {without} for data.root = {needs.root}", problem)
            continue
        except NotAllowed as error:
            yield Finding(about, "", error.problems[0])
            continue
        problems = list(wrong_keys(data, kinds))
        yield from (wrong(about, what, where, fill) for what in problems)
        if not problems:
            present = ", ".join(key for kind in kinds for key in kind.known if key in data)
            yield Finding(about, f"has {present or 'no key, and none is needed'}")


def how_to_fill(needs: Needs, name: str, usual: Sequence[str]) -> str:
    """How to make a secret from the files in deploy/secrets, which bear the ``usual`` names of what it holds."""
    own = [f"namespace {needs.namespace}"] if needs.namespace != NAMESPACE else []
    own += [f"secret {name}"] if [name] != usual else []
    change = f"put {' and '.join(own)} into deploy/secrets/kustomization.yaml, " if own else ""
    files = " and ".join(f"deploy/secrets/{file}.env" for file in usual)
    return f"{change}fill in {files}, then kubectl apply --server-side -k deploy/secrets"


def wrong_keys(data: Mapping[str, str], kinds: Sequence[Keys]) -> Iterable[str]:
    """What is wrong with the keys of a secret that holds these kinds, without any of its values."""
    known = [key for kind in kinds for key in kind.known]
    for key in sorted(data.keys() - set(known)):
        near = difflib.get_close_matches(key, known, 1, 0.7)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
        yield f"no task reads the key {key}; {hint}"
    for kind in kinds:
        if kind.needed or data.keys() & set(kind.basic):
            yield from (f"the key {key} is missing" for key in kind.basic if key not in data)
    for key in known:
        value = base64.b64decode(data.get(key) or "")
        if key in data and not value:
            yield f"the key {key} is empty, and would hide what a pod has from elsewhere"
        elif value != value.strip():
            yield f"the value of {key} begins or ends with a blank or a line break"


def check_claims(api: Kubernetes, needs: Needs) -> Iterable[Finding]:
    """The volume claims: bound, or waiting for their first pod if their storage class works that way; and such that
    several nodes can mount them, where these train.
    """
    for name in [needs.state_claim, *([needs.data_claim] if on_volume(needs.root) else [])]:
        about, where = f"claim {name}", needs.where("claim", name)
        deploy = train_nodes.DEPLOY if name == needs.state_claim else train_nodes.DEPLOY_DATA
        make = f"{needs.deploy(deploy)} ({train_nodes.DOCS})" if needs.nodes > 1 else needs.deploy(DEPLOY)
        try:
            claim = api.get(f"/api/v1/namespaces/{needs.namespace}/persistentvolumeclaims/{name}")
        except NotThere:
            todo = make
            if name == needs.state_claim and needs.nodes == 1:
                todo += ", or submit with --no-state-volume"
            yield wrong(about, f"there is no claim {name}", where, todo)
            continue
        if claim["metadata"].get("deletionTimestamp"):
            what = f"claim {name} is being deleted, and stays until no pod uses it; no new pod gets it"
            todo = f"kubectl -n {needs.namespace} describe pvc {name} names the pods: delete them, then {make}"
            yield wrong(about, what, where, todo)
            continue
        modes, phase = claim["spec"].get("accessModes", []), claim.get("status", {}).get("phase", "unknown")
        note = ""
        enough = {"ReadWriteMany"} if name == needs.state_claim else {"ReadWriteMany", "ReadOnlyMany"}
        if needs.nodes > 1 and not enough & set(modes):
            what = f"claim {name} is {', '.join(modes) or 'of no mode'}: several nodes cannot mount it"
            todo = f"copy what you need from it, delete it, and create it again as ReadWriteMany: {make}"
            yield wrong(about, what, where, todo)
            continue
        if "ReadWriteMany" not in modes:
            note = f"; {', '.join(modes)}: pods that use it at the same time share a node"
        if phase == "Bound":
            if nodes := volume_nodes(api, claim):
                note += f"; pods that use it run on nodes with {nodes}"
            yield Finding(about, f"bound, {claim['status'].get('capacity', {}).get('storage', 'size unknown')}{note}")
        elif phase == "Pending" and waits(api, claim):
            yield Finding(about, f"waits for its first pod, as its storage class asks{note}")
        else:
            event = api.last_event(needs.namespace, "PersistentVolumeClaim", name)
            what = f"claim {name} is {phase}" + (f": {event}" if event else "")
            todo = (
                f"kubectl -n {needs.namespace} describe pvc {name}; name a storage class of the cluster in an overlay"
            )
            yield wrong(about, what, where, todo)


def check_account(api: Kubernetes, needs: Needs) -> Iterable[Finding]:
    """Whether the tasks' service account exists and may do what KFP and training on several nodes do with it."""
    name = needs.service_account
    about, where = f"service account {name}", needs.where("service account", name)
    try:
        api.get(f"/api/v1/namespaces/{needs.namespace}/serviceaccounts/{name}")
    except NotThere:
        todo = f"{needs.deploy(DEPLOY)}; or name another: --service-account"
        yield wrong(about, f"there is no service account {name}", where, todo)
        return
    rights = dict.fromkeys(RIGHTS, needs.deploy(DEPLOY)) | dict.fromkeys(
        train_nodes.RIGHTS if needs.nodes > 1 else (), needs.deploy(train_nodes.DEPLOY)
    )
    if opens := store_secret(api, needs):
        rights.setdefault(("", "secrets", "get", opens), OVERLAY)
    try:
        lacking = [right for right in rights if not api.may(name, needs.namespace, right)]
    except NotAllowed:
        yield Finding(about, "exists; its rights were not checked, because you may not ask for those of others")
        return
    for right in lacking:
        group, resource, verb, item = right
        what = f"{name} may not {verb} {resource}{f' {item}' if item else ''}{f' of {group}' if group else ''}"
        yield wrong(about, what, where, f"{rights[right]}; or name an account that may: --service-account")
    if not lacking:
        yield Finding(about, f"may do all {len(rights)} things that a task needs")


def check_gpus(api: Kubernetes, needs: Needs) -> Iterable[Finding]:
    """Whether a ready node has the accelerators; a problem only where the run asks for some."""
    resource, count = needs.accelerator_type, max(1, needs.accelerator_count)
    try:
        nodes = api.get("/api/v1/nodes")["items"]
    except NotAllowed:
        yield Finding("gpu", "not checked, because you may not see nodes")
        return
    accelerators = [whole(node["status"].get("allocatable", {}).get(resource, "0")) for node in nodes]
    fit = [node for node, has in zip(nodes, accelerators, strict=True) if has >= count and ready(node)]
    if not fit:
        most = max(accelerators, default=0)
        what = f"no ready node of {len(nodes)} has {count} {resource}; the most that one has is {most}"
        todo = "install the device plugin of the GPU's maker, add a node, or ask for fewer"
        problem = Problem(what, "nodes", todo) if needs.accelerator_count else None
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


def has_role(api: Kubernetes, needs: Needs) -> bool:
    """Whether the account has a role that opens S3 in place of keys. EKS Pod Identity writes none into the account."""
    try:
        account = api.get(f"/api/v1/namespaces/{needs.namespace}/serviceaccounts/{needs.service_account}")
    except ClusterError:
        return False
    return ROLE in (account["metadata"].get("annotations") or {})


def ready(node: Mapping[str, Any]) -> bool:
    conditions = {item["type"]: item["status"] for item in node["status"].get("conditions", ())}
    return conditions.get("Ready") == "True" and not node["spec"].get("unschedulable")


def waits(api: Kubernetes, claim: Mapping[str, Any]) -> bool:
    """Whether the claim's storage class binds it only once a pod uses it."""
    name = claim["spec"].get("storageClassName")
    if not name:
        return False
    try:
        mode = api.get(f"/apis/storage.k8s.io/v1/storageclasses/{name}").get("volumeBindingMode")
    except ClusterError:
        return False
    return bool(mode == "WaitForFirstConsumer")
