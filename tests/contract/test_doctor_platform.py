"""`capnet doctor --cluster` on what Argo tries again, on KFP's own store, and on DNS and network plugin.

The configurations are those of kubeflow/pipelines 2.16.0 and 2.17.0, manifests/kustomize/third-party/argo/base,
workflow-controller-configmap-patch.yaml. How they are merged and read is in argoproj/argo-workflows v4.0.5:
workflow/controller/operator.go (mergedTemplateDefaultsInto, processNodeRetries, buildRetryStrategyLocalScope,
podReconciliation, inferFailedReason) and
pkg/apis/workflow/v1alpha1/workflow_types.go (RetryPolicyActual).
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml
from contract.kubernetes_server import Cluster, serving

from capnet.cluster.kubernetes_api import ClusterError, Kubernetes
from capnet.commands.doctor import nodes, platform
from capnet.commands.doctor.cluster import check_account
from capnet.commands.doctor.findings import Finding, Needs, report
from capnet.errors import CapnetError

pytestmark = pytest.mark.slow

CONFIG = f"/api/v1/namespaces/kubeflow/configmaps/{platform.CONTROLLER}"
OF_2_17 = """spec:
  ttlStrategy:
    secondsAfterCompletion: 3600
  templateDefaults:
    retryStrategy:
      limit: '2'
      retryPolicy: OnError
"""


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    held = Cluster()
    with serving(held, tmp_path) as path:
        monkeypatch.setenv("KUBECONFIG", str(path))
        yield held


def retries(cluster: Cluster, **data: str) -> Finding:
    cluster.objects[CONFIG] = {"kind": "ConfigMap", "data": data}
    (check,) = platform.check_retries(Kubernetes(), Needs("s3://bucket/birds"))
    return check


def strategy(text: str) -> dict[str, Any]:
    result: dict[str, Any] = yaml.safe_load(text)["spec"]["templateDefaults"]["retryStrategy"]
    return result


def test_the_server_of_2_17_tries_only_vanished_pods_again_and_one_line_changes_that(cluster: Cluster) -> None:
    check = retries(cluster, workflowDefaults=OF_2_17)
    assert check.message == "a task is tried again only if its pod vanished, and not after it failed or was evicted"
    get, sed, apply = check.warning.split(" | ")
    assert (get.split()[:3], apply) == (["kubectl", "-n", "kubeflow"], "kubectl apply -f -")
    changed = subprocess.run(["bash", "-c", sed], input=OF_2_17, capture_output=True, text=True, check=True).stdout
    assert strategy(changed) == {"limit": "2", "expression": platform.AGAIN}
    again = retries(cluster, workflowDefaults=changed)
    assert not again.warning
    assert platform.AGAIN in again.message
    assert strategy(OF_2_17)["retryPolicy"] == "OnError", "the rest of the text is as it was"
    assert changed.splitlines()[:5] == OF_2_17.splitlines()[:5]


def test_the_server_of_2_16_tries_only_failures_again(cluster: Cluster) -> None:
    check = retries(cluster, artifactRepository="archiveLogs: true\n")
    assert check.message == "a task is tried again after it failed or was evicted, and not if its pod vanished"
    _, _, text = check.warning.partition("workflowDefaults: ")
    assert yaml.safe_load(text)["spec"]["templateDefaults"]["retryStrategy"]["expression"] == platform.AGAIN
    old = yaml.safe_dump({"workflowDefaults": yaml.safe_load(OF_2_17)})
    assert "only if its pod vanished" in retries(cluster, config=old).message, "all in one key, as Argo reads too"


@pytest.mark.parametrize("text", ["spec: [", "words", "[1, 2]", "spec: {templateDefaults: 3}", "\t"])
def test_a_configuration_that_says_nothing_is_read_as_the_default(cluster: Cluster, text: str) -> None:
    assert "not if its pod vanished" in retries(cluster, workflowDefaults=text, config=text).message
    launcher = {"kind": "ConfigMap", "data": {"providers": text}}
    cluster.objects[f"/api/v1/namespaces/kubeflow/configmaps/{platform.LAUNCHER}"] = launcher
    assert platform.store_secret(Kubernetes(), Needs("data")) == ""


def test_a_policy_that_would_run_the_whole_run_again_is_warned_of(cluster: Cluster) -> None:
    check = retries(cluster, workflowDefaults=OF_2_17.replace("OnError", "Always"))
    assert "groups of tasks and the whole run too" in check.message
    assert check.warning


@pytest.mark.parametrize(
    ("status", "code", "again"),
    [
        ("Error", "-1", True),  # the pod vanished
        ("Failed", "1", True),
        ("Failed", "137", True),
        ("Failed", "143", True),  # deleted with time to end
        ("Failed", "-1", False),  # a group of tasks: what failed in it was tried again
    ],
)
def test_what_the_remedy_tries_again(status: str, code: str, again: bool) -> None:
    """Its words mean the same in Python as in Argo's expressions."""
    text = platform.AGAIN.replace("lastRetry.", "")
    assert re.fullmatch(r"[\w\s='!-]+", text)
    assert eval(text, {"__builtins__": {}}, {"status": status, "exitCode": code}) is again


def test_a_configuration_that_one_may_not_see_is_no_fault(cluster: Cluster) -> None:
    (check,) = platform.check_retries(Kubernetes(), Needs("data"))
    assert "cannot be seen" in check.message
    cluster.forbidden = {platform.CONTROLLER}
    (check,) = platform.check_retries(Kubernetes(), Needs("data"))
    assert (check.problem, check.warning) == (None, "")


def test_a_pull_secret_must_be_one_that_nodes_pull_with(cluster: Cluster) -> None:
    needs = Needs("data", pull_secret="registry-key")
    (check,) = platform.check_pull_secret(Kubernetes(), needs)
    assert check.problem is not None
    assert "there is no secret registry-key" in check.problem.what
    secret = {"kind": "Secret", "metadata": {"name": "registry-key"}, "type": "Opaque"}
    cluster.apply("kubeflow", secret)
    (check,) = platform.check_pull_secret(Kubernetes(), needs)
    assert check.problem is not None
    assert "no node pulls with it" in check.problem.what
    cluster.apply("kubeflow", {**secret, "type": "kubernetes.io/dockerconfigjson"})
    (check,) = platform.check_pull_secret(Kubernetes(), needs)
    assert check.problem is None


KEYS = "credentials: {fromEnv: false, secretRef: {secretName: bucket-keys, accessKeyKey: a, secretKeyKey: b}}"
LAUNCHERS = [  # kubeflow/pipelines 2.17.0, backend/src/v2/config: env.go, minio.go, s3.go (getOverrideByPrefix)
    ({}, ""),
    ({"defaultPipelineRoot": ""}, ""),
    ({"providers": f"s3: {{default: {{{KEYS}}}}}"}, ""),  # the store is not in S3
    ({"defaultPipelineRoot": "s3://birds/runs", "providers": f"s3: {{default: {{{KEYS}}}}}"}, "bucket-keys"),
    ({"providers": f"minio: {{default: {{endpoint: minio, {KEYS}}}}}"}, "bucket-keys"),
    ({"defaultPipelineRoot": "s3://birds", "providers": "s3: {default: {credentials: {fromEnv: true}}}"}, ""),
    (
        {
            "defaultPipelineRoot": "s3://birds/runs",
            "providers": "s3: {default: {credentials: {fromEnv: true}}, overrides: [{bucketName: other, keyPrefix: r,"
            f" {KEYS}}}, {{bucketName: birds, keyPrefix: ru, {KEYS}}}]}}",
        },
        "bucket-keys",
    ),
]


@pytest.mark.parametrize(("data", "name"), LAUNCHERS)
def test_the_account_may_read_the_keys_of_the_servers_own_store(
    data: dict[str, str], name: str, cluster: Cluster, repository: Path
) -> None:
    """The launcher asks for the secret with its pod's account (objectstore/object_store.go, getS3BucketCredential)."""
    account = list(yaml.safe_load_all((repository / "deploy" / "base" / "service-account.yaml").read_text()))
    cluster.apply("kubeflow", *account)
    cluster.objects["/api/v1/namespaces/kubeflow/configmaps/kfp-launcher"] = {"kind": "ConfigMap", "data": data}
    needs = Needs("s3://bucket/birds")
    (check,) = check_account(Kubernetes(), needs)
    assert (check.problem.what if check.problem else "") == (name and f"capnet-pipeline may not get secrets {name}")
    (rule,) = [one for one in account[1]["rules"] if one["resources"] == ["secrets"]]
    rule["resourceNames"].append(name)
    (check,) = check_account(Kubernetes(), needs)
    assert check.problem is None


def network(cluster: Cluster) -> Finding:
    (check,) = platform.check_network(Kubernetes(), Needs("s3://bucket/birds"))
    return check


def test_dns_and_network_plugin_are_named(cluster: Cluster, repository: Path) -> None:
    assert network(cluster).message == "names are answered by pods; the plugin is not Cilium"
    cluster.objects["/apis/apps/v1/namespaces/kube-system/daemonsets/node-local-dns"] = {"kind": "DaemonSet"}
    assert "NodeLocal DNSCache" in network(cluster).message
    cluster.objects[platform.CILIUM] = {"kind": "APIResourceList"}
    assert network(cluster).warning == "kubectl -n kubeflow apply -f deploy/cilium/network.yaml"
    policy = yaml.safe_load((repository / "deploy" / "cilium" / "network.yaml").read_text())
    name = policy["metadata"]["name"]
    cluster.objects[f"{platform.CILIUM}/namespaces/kubeflow/ciliumnetworkpolicies/{name}"] = policy
    assert network(cluster).warning == ""
    cluster.forbidden = {"/node-local-dns"}
    assert "what answers names cannot be seen" in network(cluster).message


def test_a_warning_is_printed_with_what_to_do_and_is_no_failure(capsys: pytest.CaptureFixture[str]) -> None:
    report([Finding("retries", "less than could be", warning="do this")], CapnetError)
    assert capsys.readouterr().out == "warn   retries: less than could be\n  to do: do this\n"


@pytest.mark.parametrize("tag", ["unknown", ""])
def test_a_server_without_a_version_may_be_too_old(cluster: Cluster, tag: str) -> None:
    """kubeflow/pipelines 2.15.0: backend/Dockerfile has ARG TAG_NAME=unknown, and no workflow gave another."""
    cluster.healthz["tag_name"] = tag
    unknown, answers = platform.check_pipelines(Kubernetes(), Needs("s3://bucket/birds"))
    assert "2.16" in unknown.warning
    assert answers.message == "Kubeflow Pipelines of unknown version answers"


@pytest.mark.parametrize(("field", "enough"), [("podTemplateOverrides", False), ("runtimePatches", True)])
def test_a_trainer_that_would_drop_the_volumes_of_a_trainjob_is_too_old(
    cluster: Cluster, field: str, enough: bool
) -> None:
    """kubeflow/trainer, pkg/apis/trainer/v1alpha1/trainjob_types.go: v2.1.0 has podTemplateOverrides, v2.2.0
    runtimePatches. Kubernetes publishes the fields of a CRD at /openapi/v3.
    """
    fields = {"spec": {"properties": {field: {"type": "array"}}}}
    cluster.objects[nodes.TRAINER] = {"kind": "APIResourceList"}
    cluster.objects[f"{nodes.TRAINER}/clustertrainingruntimes/torch-distributed"] = {}
    cluster.objects[f"/openapi/v3{nodes.TRAINER}"] = {
        "components": {"schemas": {"org.kubeflow.trainer.v1alpha1.TrainJob": {"properties": fields}}}
    }
    (check,) = nodes.check_trainer(Kubernetes(), Needs("s3://bucket/birds", nodes=2))
    assert (check.problem is None) == enough
    assert enough or (check.problem and "older than 2.2" in check.problem.what)


def test_a_training_runtime_that_one_may_not_see_is_not_said_to_be_there(cluster: Cluster) -> None:
    cluster.objects[nodes.TRAINER] = {"kind": "APIResourceList"}
    cluster.forbidden = {"/clustertrainingruntimes/torch-distributed"}
    (check,) = nodes.check_trainer(Kubernetes(), Needs("s3://bucket/birds", nodes=2))
    assert check.problem is None
    assert check.message == "Kubeflow Trainer; runtime torch-distributed was not checked, because you may not see it"


@pytest.mark.parametrize("content", [b"clusters: [", b"\x80", b"- clusters\n", b"clusters: 1\n", b"a: &b *b\n"])
def test_a_kubeconfig_that_is_damaged_is_named(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = tmp_path / "kubeconfig"
    damaged.write_bytes(content)
    monkeypatch.setenv("KUBECONFIG", str(damaged))
    with pytest.raises(ClusterError, match=rf"configuration cannot be used: .*\n  where: {damaged}"):
        Kubernetes()


@pytest.mark.parametrize("body", [b"<html>log in</html>", b"", b"[]", b"\xff"])
def test_what_is_no_answer_of_kubernetes_is_said(body: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    Thread(target=server.serve_forever, daemon=True).start()
    address = {"server": f"http://127.0.0.1:{server.server_port}"}
    content = {
        "current-context": "a",
        "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
        "clusters": [{"name": "a", "cluster": address}],
        "users": [{"name": "a", "user": {}}],
    }
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(content))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    with pytest.raises(ClusterError, match="something else than Kubernetes answers: /version"):
        Kubernetes().get("/version")
    server.shutdown()
    server.server_close()
