"""`capnet doctor --cluster` and what a cluster is in the middle of, or has elsewhere than in namespace kubeflow."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from contract import doctor_command
from contract.doctor_command import SPACE, DoctorCommand

from capnet.cluster import names

pytestmark = pytest.mark.slow

doctor = doctor_command.doctor


def test_a_claim_that_is_being_deleted_is_no_claim_for_a_new_pod(doctor: DoctorCommand) -> None:
    """Kubernetes 1.36.2: it is Bound with a deletionTimestamp as long as a pod uses it, and kubectl apply leaves it."""
    claim = doctor.cluster.find(SPACE, "persistentvolumeclaims", names.STATE_CLAIM)
    claim["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    for nodes, folder in (("1", "overlays/standalone"), ("2", "overlays/nodes")):
        output, error = doctor.run("--nodes", nodes)
        assert folder in str(error)
        assert "claim capnet-state is being deleted, and stays until no pod uses it" in str(error)
        assert "kubectl -n kubeflow describe pvc capnet-state" in str(error)
        assert "ok     claim" not in output


def test_where_a_claim_can_be_mounted_is_said(doctor: DoctorCommand) -> None:
    """A disk of one zone, as drivers of clouds make it, and one of two nodes; the job of deploy/base ran on one."""
    claim = doctor.cluster.find(SPACE, "persistentvolumeclaims", names.STATE_CLAIM)
    claim["spec"]["volumeName"] = "pvc-1"
    volume = doctor.cluster.objects.setdefault("/api/v1/persistentvolumes/pvc-1", {"spec": {}})
    assert "run on nodes with" not in doctor.run()[0]
    zone = {"key": "topology.gke.io/zone", "operator": "In", "values": ["europe-west4-a"]}
    nodes = [{"key": "kubernetes.io/hostname", "operator": "In", "values": [name]} for name in ("n1", "n2")]
    for terms, words in (
        ([[zone]], "topology.gke.io/zone In europe-west4-a"),
        ([[nodes[0]], [nodes[1]]], "kubernetes.io/hostname In n1 or kubernetes.io/hostname In n2"),
    ):
        selected = [{"matchExpressions": expressions} for expressions in terms]
        volume["spec"] = {"nodeAffinity": {"required": {"nodeSelectorTerms": selected}}}
        assert (
            f"bound, 50Gi; ReadWriteOnce: pods that use it at the same time share a node; pods that use it run on"
            f" nodes with {words}" in " ".join(doctor.run()[0].split())
        )


def test_in_another_namespace_no_overlay_for_kubeflow_is_named(doctor: DoctorCommand) -> None:
    for nodes in ("1", "2"):
        _, error = doctor.run("--namespace", "birds", "--nodes", nodes)
        todos = (
            [item.todo for item in error.problems if "claim" in item.where or "account" in item.where] if error else []
        )
        assert len(todos) == 2
        for todo in todos:
            assert "an overlay of yours for namespace birds, such as deploy/overlays/profile" in todo
            assert "overlays/standalone" not in todo
            assert "overlays/nodes" not in todo


def test_who_sees_nothing_in_the_usual_namespace_is_asked_for_a_profile(doctor: DoctorCommand) -> None:
    """The account of a notebook in a profile: Kubernetes 1.36.2 let it see neither the namespace nor what is in it."""
    secrets = {f"/secrets/{name}" for name in (names.S3_SECRET, names.MLFLOW_SECRET, names.GIT_SECRET)}
    doctor.cluster.forbidden = {f"/namespaces/{SPACE}"}  # only this: a role in the namespace
    assert "name yours: --namespace" not in doctor.run()[0]
    doctor.cluster.forbidden |= secrets
    output, error = doctor.run()
    assert "if Kubeflow has profiles, name yours: --namespace" in output
    assert "you may not get" in str(error)


def test_a_node_that_shares_its_gpu_a_thousand_times_is_counted(doctor: DoctorCommand) -> None:
    """The API writes whole thousands with a suffix, as of any quantity (k8s.io/apimachinery, pkg/api/resource)."""
    doctor.cluster.objects["/api/v1/nodes/b"]["status"]["allocatable"][names.ACCELERATOR] = "1k"
    output, error = doctor.run("--accelerator-count", "1")
    assert error is None
    assert "1 of 2 nodes have nvidia.com/gpu" in output
    assert "the most that one has is 1000" in str(doctor.run("--accelerator-count", "1001")[1])


@pytest.mark.parametrize("named", ["proxy-url", "http_proxy"])
def test_a_cluster_is_asked_through_the_proxy_that_kubectl_uses(
    doctor: DoctorCommand, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    """kubernetes 30.1.0, config/kube_config.py, reads neither; the stand-in is the proxy."""
    path = Path(os.environ["KUBECONFIG"])
    content = yaml.safe_load(path.read_text())
    cluster = content["clusters"][0]["cluster"]
    address, cluster["server"] = cluster["server"], "http://cluster.invalid"
    path.write_text(yaml.safe_dump(content))
    monkeypatch.setenv("http_proxy", address if named == "http_proxy" else "http://another.invalid")
    if named == "proxy-url":
        path.write_text(
            yaml.safe_dump(content | {"clusters": [{"name": "here", "cluster": cluster | {named: address}}]})
        )
    assert doctor.run()[1] is None
    cluster["proxy-url"] = "socks5://127.0.0.1:1080"
    path.write_text(yaml.safe_dump(content))
    assert "unsupported scheme socks5" in str(doctor.run()[1])
