"""How the cluster itself is set up, as far as a run notices: Kubeflow Pipelines, which tasks Argo tries again, what
opens the registry and KFP's own store, what answers names, which network plugin enforces policies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from capnet.cluster.kubernetes_api import ClusterError, Kubernetes, NotAllowed, NotThere
from capnet.cluster.names import NEWER_KFP, SERVICE_ACCOUNT, kfp_is_new_enough
from capnet.commands.doctor.findings import Finding, Needs, wrong

CONTROLLER = "workflow-controller-configmap"  # of Argo, as Kubeflow Pipelines names it
# -1 has what is no container: a group of tasks, of which what failed was tried again. KFP's launcher ends with 1
# whatever a task ended with, so mistakes in settings are tried again, too; the gate has a limit of its own
AGAIN = "lastRetry.status == 'Error' or lastRetry.exitCode != '-1'"
LAUNCHER = "kfp-launcher"  # config map of KFP's driver and launcher, in the namespace of a run
STORE = "minio://mlpipeline/v2/artifacts"  # KFP's own store where the config map names none
REGISTRY = ("kubernetes.io/dockerconfigjson", "kubernetes.io/dockercfg")  # kinds of secrets that nodes pull images with
CILIUM = "/apis/cilium.io/v2"


def check_pipelines(api: Kubernetes, needs: Needs) -> Iterable[Finding]:
    """Whether Kubeflow Pipelines answers and is new enough, asked through the Kubernetes API so that no port-forward is
    needed.
    """
    about, space = "pipelines", needs.kfp_namespace
    where = f"service ml-pipeline, namespace {space}"
    try:
        answer = api.get(f"/api/v1/namespaces/{space}/services/ml-pipeline:8888/proxy/apis/v2beta1/healthz")
    except NotAllowed:
        yield Finding(about, "not checked, because you may not reach a service through the API; pipelines.submit will")
        return
    except NotThere:
        todo = "install it (docs/on-kubernetes.md), or say where it is: --kfp-namespace"
        yield wrong(about, "Kubeflow Pipelines is not there", where, todo)
        return
    except ClusterError as error:
        what = f"Kubeflow Pipelines does not answer: {error.problems[0].what}"
        yield wrong(about, what, where, f"kubectl -n {space} get pods; kubectl -n {space} logs deployment/ml-pipeline")
        return
    if answer.get("multi_user") and needs.namespace == space:
        what = "this Kubeflow has profiles, and runs nothing in its own namespace"
        yield wrong(about, what, where, "name your profile: --namespace")
        return
    tag = str(answer.get("tag_name") or "")
    if (new_enough := kfp_is_new_enough(tag)) is False:
        yield wrong(about, f"Kubeflow Pipelines {tag} does not know what our pipelines ask for", where, NEWER_KFP)
        return
    if new_enough is None:
        hint = f"releases before 2.16 may not say theirs, and cannot run our pipelines: {NEWER_KFP}"
        yield Finding(about, "the version of Kubeflow Pipelines is unknown", warning=hint)
    warning = ""
    if answer.get("multi_user") and needs.service_account == SERVICE_ACCOUNT:
        warning = (
            f"runs in a profile work as default-editor unless they are submitted with --service-account"
            f" {SERVICE_ACCOUNT}: check it with --service-account default-editor"
        )
    yield Finding(about, f"Kubeflow Pipelines {tag if new_enough else 'of unknown version'} answers", warning=warning)


def check_retries(api: Kubernetes, needs: Needs) -> Iterable[Finding]:
    """Which failures Argo answers with another try: its defaults are merged below what a pipeline says."""
    about, space = "retries", needs.kfp_namespace
    try:
        data = api.get(f"/api/v1/namespaces/{space}/configmaps/{CONTROLLER}").get("data") or {}
    except (NotAllowed, NotThere):
        yield Finding(about, f"not checked, because the config map {CONTROLLER} cannot be seen")
        return
    strategy = retry_defaults(data)
    policy = strategy.get("retryPolicy") or ("Always" if strategy.get("expression") else "OnFailure")
    if strategy.get("expression"):
        yield Finding(about, f"{policy}, where this holds: {strategy['expression']}")
        return
    change = f'"s/retryPolicy: {policy}/expression: {AGAIN}/"'
    todo = f"kubectl -n {space} get configmap {CONTROLLER} -o yaml | sed {change} | kubectl apply -f -"
    if policy == "OnError":
        what = "a task is tried again only if its pod vanished, and not after it failed or was evicted"
    elif policy == "Always":
        what = "whatever fails is tried again, groups of tasks and the whole run too"
    else:
        what = "a task is tried again after it failed or was evicted, and not if its pod vanished"
        inner = f'{{templateDefaults: {{retryStrategy: {{limit: "2", expression: "{AGAIN}"}}}}}}'
        todo = f"put into its key workflowDefaults: {{spec: {inner}}}"
    yield Finding(about, what, warning=todo)


def retry_defaults(data: dict[str, str]) -> dict[str, Any]:
    """The retry strategy that Argo's configuration gives every template; empty where it gives none."""
    content = mapping(data.get("workflowDefaults")) or mapping(mapping(data.get("config")).get("workflowDefaults"))
    for key in ("spec", "templateDefaults", "retryStrategy"):
        content = mapping(content.get(key))
    return content


def mapping(value: Any) -> dict[str, Any]:
    """A mapping, as it is or in YAML; empty for everything else, which KFP or Argo could not read either."""
    try:
        content = yaml.safe_load(value) if isinstance(value, str) else value
    except yaml.YAMLError:
        return {}
    return content if isinstance(content, dict) else {}


def store_secret(api: Kubernetes, needs: Needs) -> str:
    """The secret with the keys of KFP's own store, which its launcher reads with the account of a task's pod; "" where
    the config map names none: then it is KFP's usual one, or the keys come from the environment.
    """
    try:
        data = api.get(f"/api/v1/namespaces/{needs.namespace}/configmaps/{LAUNCHER}").get("data") or {}
    except (NotAllowed, NotThere):
        return ""
    scheme, _, path = (data.get("defaultPipelineRoot") or STORE).partition("://")
    bucket, _, prefix = path.partition("/")
    provider = mapping(mapping(data.get("providers")).get(scheme))
    listed = [mapping(one) for one in provider.get("overrides") or provider.get("Overrides") or ()]
    fitting = [
        one for one in listed if one.get("bucketName") == bucket and prefix.startswith(one.get("keyPrefix") or "")
    ]
    credentials = mapping(mapping(fitting[0] if fitting else provider.get("default")).get("credentials"))
    return "" if credentials.get("fromEnv") else str(mapping(credentials.get("secretRef")).get("secretName") or "")


def volume_nodes(api: Kubernetes, claim: Mapping[str, Any]) -> str:
    """Labels of the nodes that can mount a bound claim's volume: those of one zone, with a local disk a single one. ""
    for any node, and where the volume cannot be seen.
    """
    try:
        spec = api.get(f"/api/v1/persistentvolumes/{claim['spec'].get('volumeName')}")["spec"]
    except ClusterError:
        return ""
    terms = mapping(mapping(spec.get("nodeAffinity")).get("required")).get("nodeSelectorTerms") or ()
    return " or ".join(
        ", ".join(
            " ".join((one["key"], one["operator"], *(one.get("values") or ()))) for one in term["matchExpressions"]
        )
        for term in terms
        if term.get("matchExpressions")
    )


def check_pull_secret(api: Kubernetes, needs: Needs) -> Iterable[Finding]:
    """Whether the secret of the registry is there, and of a kind that nodes pull images with."""
    name, about = needs.pull_secret, f"pull secret {needs.pull_secret}"
    todo = f"kubectl -n {needs.namespace} create secret docker-registry {name} --docker-server=..."
    try:
        kind = api.get(f"/api/v1/namespaces/{needs.namespace}/secrets/{name}").get("type", "Opaque")
    except NotThere:
        yield wrong(about, f"there is no secret {name}", needs.where("secret", name), todo)
        return
    if kind not in REGISTRY:
        yield wrong(about, f"the secret is {kind}, and no node pulls with it", needs.where("secret", name), todo)
        return
    yield Finding(about, "is there")


def check_network(api: Kubernetes, needs: Needs) -> Iterable[Finding]:
    """What answers names, and whether the network plugin is one that our policy of Kubernetes is not enough for."""
    about = "network"
    cached = api.exists("/apis/apps/v1/namespaces/kube-system/daemonsets/node-local-dns")
    names = "by a cache on every node (NodeLocal DNSCache)" if cached else "by pods"
    dns = f"names are answered {names}" if cached is not None else "what answers names cannot be seen"
    if not api.exists(CILIUM):
        yield Finding(about, f"{dns}; the plugin is not Cilium")
        return
    policies = f"{CILIUM}/namespaces/{needs.namespace}/ciliumnetworkpolicies/capnet-api"
    if api.exists(policies) is False:
        todo = f"kubectl -n {needs.namespace} apply -f deploy/cilium/network.yaml"
        yield Finding(about, f"{dns}; Cilium's policies do not match the Kubernetes API by its address", warning=todo)
        return
    yield Finding(about, f"{dns}; Cilium, with a policy for the Kubernetes API")
