"""Network policies in deploy/: whom they select, what they let in and out; and pods behind Istio's sidecars."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from contract import deployed
from contract.deployed import manifests

from capnet.cluster import names as cluster
from capnet.serving import kserve
from pipelines import compiling

base = deployed.base


def test_the_network_policy_selects_every_task_and_lets_nothing_in(base: dict[tuple[str, str], dict[str, Any]]) -> None:
    policy = base["NetworkPolicy", "capnet-tasks"]["spec"]
    selector = policy["podSelector"]["matchLabels"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["ingress"] == []
    names = {53, 5353}
    anywhere = [{item["port"] for item in rule["ports"]} for rule in policy["egress"] if "to" not in rule]
    assert anywhere == [names], "NodeLocal DNSCache is no pod: only names may be asked anywhere"
    assert all(rule["ports"] for rule in policy["egress"]), "a rule without ports lets everything out"
    for name in compiling.GOLDEN_PIPELINES:
        _, platform = yaml.safe_load_all((compiling.GOLDEN / f"{name}.yaml").read_text())
        for task, settings in platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].items():
            assert selector.items() <= settings["podMetadata"]["labels"].items(), f"{name}: {task}"


def test_what_tasks_reach_in_a_run_is_let_out(base: dict[tuple[str, str], dict[str, Any]]) -> None:
    """Connections of the pods of training, in one pod and on two nodes, as a cluster with KFP 2.17.0 counted them while
    it enforced the policies; ports are those of pods: that of seaweedfs:9000 is 8333.
    """
    policy = base["NetworkPolicy", "capnet-tasks"]["spec"]
    for where, port in (("kubeflow", 8887), ("kubeflow", 8080), ("kubeflow", 8333), ("mlflow", 5000), ("", 6443)):
        to = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": where}}}
        asked = to if where else {"ipBlock": {"cidr": "0.0.0.0/0"}}
        rules = [rule for rule in policy["egress"] if {"port": port, "protocol": "TCP"} in rule["ports"]]
        assert [rule for rule in rules if asked in rule.get("to", [])], (where, port)


def policies(repository: Path) -> list[dict[str, Any]]:
    result = [item for path in (repository / "deploy").rglob("*.yaml") for item in yaml.safe_load_all(path.read_text())]
    return [item for item in result if item["kind"].endswith("NetworkPolicy")]


def selectors(value: Any) -> Iterator[dict[str, str]]:
    """Every set of labels that a policy selects pods by."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key in ("podSelector", "endpointSelector"):
                yield item["matchLabels"]
            yield from selectors(item)
    elif isinstance(value, list):
        for item in value:
            yield from selectors(item)


def test_no_policy_selects_what_serves(repository: Path) -> None:
    """KServe copies the labels of an InferenceService to its pods: kserve/kserve v0.17.0 and v0.20.0,
    pkg/controller/v1beta1/inferenceservice/components/predictor.go (utils.Union of the service's labels).
    """
    example = yaml.safe_load((repository / "deploy" / "kserve" / "capnet.yaml.example").read_text())
    result = list(selectors(policies(repository)))
    assert len(policies(repository)) == 5
    assert len(result) >= 6
    for selector in result:
        assert not selector.items() <= example["metadata"]["labels"].items()
        assert dict([cluster.LABEL]).items() <= selector.items() or selector == {"app.kubernetes.io/name": "mlflow"}
    text = inspect.getsource(kserve)
    assert not any(key in text for selector in result for key in selector if key != "app.kubernetes.io/name")


def test_where_cilium_is_tasks_reach_the_kubernetes_api(repository: Path) -> None:
    (policy,) = [item for item in policies(repository) if item["apiVersion"] == "cilium.io/v2"]
    assert policy["spec"]["endpointSelector"]["matchLabels"] == dict([cluster.LABEL])
    (rule,) = policy["spec"]["egress"]
    assert rule["toEntities"] == ["kube-apiserver"]
    assert {item["port"] for item in rule["toPorts"][0]["ports"]} == {"443", "6443", "8443"}


def test_nodes_that_train_together_talk_to_each_other_only(repository: Path) -> None:
    result = {item["kind"]: item for item in manifests(repository / "deploy" / "nodes")}
    policy, pods = result["NetworkPolicy"]["spec"], {"matchLabels": dict((cluster.LABEL, cluster.NODE_LABEL))}
    assert policy["podSelector"] == pods
    assert policy["ingress"] == [{"from": [{"podSelector": pods}]}]
    assert policy["egress"] == [{"to": [{"podSelector": pods}]}]
    assert result["RoleBinding"]["subjects"] == [{"kind": "ServiceAccount", "name": cluster.SERVICE_ACCOUNT}]
    assert result["RoleBinding"]["roleRef"]["name"] == result["Role"]["metadata"]["name"]
    for rule in result["Role"]["rules"]:
        assert not any("*" in item for part in ("apiGroups", "resources", "verbs") for item in rule[part])
        assert set(rule["verbs"]) <= {"get", "list"} or rule["resources"] == ["trainjobs"]


def test_in_a_profile_no_pod_that_ends_gets_a_sidecar_that_does_not(repository: Path) -> None:
    """Namespaces of profiles have istio-injection: enabled (kubeflow/kubeflow, profile_controller.go)."""
    for path, at in (("base/volumes-job.yaml", ("spec", "template")), ("shell/pod.yaml", ())):
        item = yaml.safe_load((repository / "deploy" / path).read_text())
        for key in at:
            item = item[key]
        assert item["metadata"]["labels"]["sidecar.istio.io/inject"] == "false", path
