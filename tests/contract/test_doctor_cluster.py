"""`capnet doctor --cluster` with the real Kubernetes client against a server that holds our manifests."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from contract import doctor_command
from contract.doctor_command import SPACE, VALUE, DoctorCommand, secret
from contract.kubernetes_server import Cluster

from capnet.cluster import names
from capnet.cluster.kubernetes_api import Kubernetes
from capnet.commands.doctor import cluster as doctor_cluster
from capnet.commands.doctor import nodes as doctor_nodes
from capnet.commands.doctor.findings import Needs

pytestmark = pytest.mark.slow

doctor = doctor_command.doctor


def test_a_cluster_that_has_everything(doctor: DoctorCommand) -> None:
    output, error = doctor.run("--accelerator-count", "2")
    assert error is None
    lines = output.splitlines()
    assert all(line.startswith("ok     ") for line in lines)
    assert [line[7:].split(":")[0] for line in lines] == [
        "cluster",
        "images",
        "secret capnet-s3",
        "secret capnet-mlflow",
        "secret capnet-git",
        "claim capnet-state",
        "service account capnet-pipeline",
        "pods",
        "gpu",
        "pipelines",
        "retries",
        "network",
    ]
    assert "there is no secret registry-key" in str(doctor.run("--pull-secret", "registry-key")[1])
    assert "give --tolerations" in output
    assert "2.17.0 answers" in output
    posted = {path.rpartition("/")[2] for path in doctor.cluster.seen if path.startswith("POST")}
    assert posted == {"localsubjectaccessreviews", "pods"}, "it only looks: a pod that is no dry run is refused there"


@pytest.mark.parametrize(
    ("path", "rights"),
    [("deploy/base/service-account.yaml", doctor_cluster.RIGHTS), ("deploy/nodes/role.yaml", doctor_nodes.RIGHTS)],
)
def test_the_rights_it_asks_for_are_those_of_the_role(
    repository: Path, path: str, rights: tuple[tuple[str, ...], ...]
) -> None:
    rules = next(item for item in yaml.safe_load_all((repository / path).read_text()) if item["kind"] == "Role")[
        "rules"
    ]
    arguments = {
        (group, resource, verb, name)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        for name in rule.get("resourceNames", [""])
    }
    assert arguments == set(rights)


def change_secret(name: str, **values: str) -> Callable[[Cluster], None]:
    return lambda cluster: cluster.apply(SPACE, secret(name, **values))


def pending(cluster: Cluster) -> None:
    cluster.find(SPACE, "persistentvolumeclaims", names.STATE_CLAIM)["status"] = {"phase": "Pending"}
    cluster.objects["/apis/storage.k8s.io/v1/storageclasses/local"] = {"volumeBindingMode": "Immediate"}
    involved = {"kind": "PersistentVolumeClaim", "name": names.STATE_CLAIM}
    last = {"message": "no volume plugin matched", "lastTimestamp": None, "eventTime": "2026-01-02T00:00:00.000000Z"}
    first = {"message": "waiting", "lastTimestamp": "2026-01-01T00:00:00Z", "eventTime": None}
    cluster.events += [{"involvedObject": involved, **event} for event in (last, first)]


def without_patch(cluster: Cluster) -> None:
    cluster.find(SPACE, "roles", names.SERVICE_ACCOUNT)["rules"][0]["verbs"].remove("patch")


@pytest.mark.parametrize(
    ("damage", "arguments", "phrases"),
    [
        (lambda c: c.remove(SPACE, "secrets", names.MLFLOW_SECRET), (), ["there is no secret capnet-mlflow"]),
        (
            lambda c: c.remove(SPACE, "secrets", names.S3_SECRET),
            (),
            ["there is no secret capnet-s3", "deploy/secrets/capnet-s3.env"],
        ),
        (change_secret(names.S3_SECRET, AWS_ACCESS_KEY_ID=VALUE), (), ["AWS_SECRET_ACCESS_KEY is missing"]),
        (
            change_secret(names.S3_SECRET, AWS_ACESS_KEY_ID=VALUE, AWS_SECRET_ACCESS_KEY=VALUE),
            (),
            ["did you mean AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY_ID is missing"],
        ),
        (
            change_secret(names.MLFLOW_SECRET, MLFLOW_TRACKING_URI=VALUE + "\n"),
            (),
            ["MLFLOW_TRACKING_URI begins or ends with a blank or a line break"],
        ),
        (change_secret(names.GIT_SECRET, GIT_USERNAME=VALUE, GIT_PASSWORD=""), (), ["GIT_PASSWORD is empty"]),
        (
            lambda c: c.remove(SPACE, "persistentvolumeclaims", names.STATE_CLAIM),
            (),
            ["there is no claim capnet-state", "--no-state-volume"],
        ),
        (pending, (), ["claim capnet-state is Pending: no volume plugin matched"]),
        (
            lambda c: c.remove(SPACE, "serviceaccounts", names.SERVICE_ACCOUNT),
            (),
            ["there is no service account capnet-pipeline", "make deploy"],
        ),
        (without_patch, (), ["capnet-pipeline may not patch workflowtaskresults of argoproj.io"]),
        (lambda c: None, ("--service-account", "default"), ["there is no service account default"]),
        (
            lambda c: None,
            ("--accelerator-count", "4"),
            ["no ready node of 2 has 4 nvidia.com/gpu; the most that one has is 2"],
        ),
        (
            lambda c: None,
            ("--accelerator-count", "1", "--accelerator-type", "amd.com/gpu"),
            ["no ready node of 2 has 1 amd.com/gpu"],
        ),
        (
            lambda c: c.objects["/api/v1/nodes/b"]["spec"].update(unschedulable=True),
            ("--accelerator-count", "1"),
            ["no ready node"],
        ),
        (lambda c: None, ("--namespace", "birds"), ["there is no namespace birds", "--namespace"]),
        (lambda c: setattr(c, "pipelines", 404), (), ["Kubeflow Pipelines is not there"]),
        (lambda c: setattr(c, "pipelines", 503), (), ["does not answer", "503"]),
        (lambda c: c.healthz.update(multi_user=True), (), ["has profiles", "--namespace"]),
        (lambda c: c.healthz.update(tag_name="2.15.0"), (), ["Kubeflow Pipelines 2.15.0 does not know", "2.16"]),
    ],
)
def test_what_is_wrong_is_named_with_what_to_do(
    doctor: DoctorCommand, damage: Callable[[Cluster], Any], arguments: tuple[str, ...], phrases: list[str]
) -> None:
    damage(doctor.cluster)
    _, error = doctor.run(*arguments)
    assert error is not None
    for words in phrases:
        assert words in str(error)
    assert all(problem.where and problem.todo for problem in error.problems)
    assert error.exit_code == 7


def test_a_folder_of_this_machine_is_nothing_for_a_pod_and_one_on_the_volume_is(doctor: DoctorCommand) -> None:
    _, error = doctor.run(root="data")
    assert error is not None
    assert "no pod sees it" in str(error)
    doctor.cluster.remove(SPACE, "secrets", names.S3_SECRET)  # not needed then
    output, error = doctor.run(root="/mnt/data/birds")
    assert error is None
    assert "ok     claim capnet-data" in output
    doctor.cluster.remove(SPACE, "persistentvolumeclaims", names.DATA_CLAIM)
    assert "there is no claim capnet-data" in str(doctor.run(root="/mnt/data/birds")[1])


def test_what_several_nodes_need(doctor: DoctorCommand, repository: Path) -> None:
    cluster = doctor.cluster
    assert "Kubeflow Trainer is not there" in str(doctor.run("--nodes", "2")[1])
    cluster.objects[doctor_nodes.TRAINER] = {"kind": "APIResourceList"}
    error = str(doctor.run("--nodes", "2")[1])
    for words in (
        "no training runtime torch-distributed",
        "capnet-state is ReadWriteOnce: several nodes cannot mount it",
        "capnet-pipeline may not create trainjobs",
    ):
        assert words in error
    cluster.objects[f"{doctor_nodes.TRAINER}/clustertrainingruntimes/torch-distributed"] = {
        "kind": "ClusterTrainingRuntime"
    }
    cluster.find(SPACE, "persistentvolumeclaims", names.STATE_CLAIM)["spec"]["accessModes"] = ["ReadWriteMany"]
    cluster.apply(SPACE, *yaml.safe_load_all((repository / "deploy/nodes/role.yaml").read_text()))
    output, error_left = doctor.run("--nodes", "2")
    assert error_left is None
    assert "ok     training on several nodes: Kubeflow Trainer with runtime torch-distributed" in output
    error = str(doctor.run("--nodes", "2", root="/mnt/data/birds")[1])
    assert "capnet-data is ReadWriteOnce: several nodes cannot mount it" in error
    assert "such as deploy/overlays/profile" in error, "overlays/nodes changes the mode of the state volume only"
    cluster.remove(SPACE, "persistentvolumeclaims", names.STATE_CLAIM)
    error = str(doctor.run("--nodes", "2")[1])
    assert "there is no claim capnet-state" in error
    assert "make deploy FOLDER=overlays/nodes" in error
    assert "--no-state-volume" not in error, "several nodes are refused without it"
    assert "no training runtime mine" in str(
        doctor.run("--nodes", "2", "--training-runtime", "TrainingRuntime/mine")[1]
    )


def test_one_secret_may_hold_the_keys_of_several(doctor: DoctorCommand) -> None:
    one = ("--s3-secret", "birds", "--mlflow-secret", "birds", "--git-secret", "birds")
    error = str(doctor.run(*one)[1])
    assert "there is no secret birds" in error
    assert "put secret birds into deploy/secrets/kustomization.yaml, fill in deploy/secrets/capnet-s3.env and" in error
    assert "deploy/secrets/birds.env" not in error, "no such file"
    whole = {"AWS_ACCESS_KEY_ID": VALUE, "AWS_SECRET_ACCESS_KEY": VALUE, "MLFLOW_TRACKING_URI": VALUE}
    doctor.cluster.apply(SPACE, secret("birds", **whole))
    output, error = doctor.run(*one)
    assert error is None
    assert "ok     secret birds: has AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, MLFLOW_TRACKING_URI" in output
    doctor.cluster.apply(SPACE, secret("birds", MLFLOW_TRACKING_URI=VALUE, GIT_USERNAME=VALUE))
    error = str(doctor.run(*one)[1])
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "GIT_PASSWORD"):
        assert f"the key {key} is missing" in error


def test_an_empty_kubeconfig_is_none_as_kubectl_has_it(doctor: DoctorCommand, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Path(os.environ["KUBECONFIG"]).parent
    (home / ".kube").mkdir()
    Path(os.environ["KUBECONFIG"]).rename(home / ".kube" / "config")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("KUBECONFIG", "")
    assert doctor.run()[1] is None


def test_a_role_of_the_cloud_stands_in_for_keys(doctor: DoctorCommand) -> None:
    doctor.cluster.remove(SPACE, "secrets", names.S3_SECRET)
    account = doctor.cluster.find(SPACE, "serviceaccounts", names.SERVICE_ACCOUNT)
    for other in ("iam.gke.io/gcp-service-account", "azure.workload.identity/client-id"):
        account["metadata"]["annotations"] = {other: "x"}
        assert "there is no secret" in str(doctor.run()[1]), "boto3 opens nothing with it"
    account["metadata"]["annotations"] = {"eks.amazonaws.com/role-arn": "arn"}
    assert doctor.run()[1] is None


def test_a_claim_that_waits_for_its_first_pod_is_well(doctor: DoctorCommand) -> None:
    pending(doctor.cluster)
    doctor.cluster.objects["/apis/storage.k8s.io/v1/storageclasses/local"] = {
        "volumeBindingMode": "WaitForFirstConsumer"
    }
    output, error = doctor.run()
    assert error is None
    assert "waits for its first pod" in output


def test_what_one_may_not_ask_is_said_and_is_no_fault(doctor: DoctorCommand) -> None:
    doctor.cluster.forbidden = {"/localsubjectaccessreviews", "/nodes", "/healthz", f"/namespaces/{SPACE}"}
    output, error = doctor.run()
    assert error is None
    assert output.count("not checked") == 4
    doctor.cluster.forbidden = {"/secrets/capnet-s3"}
    output, error = doctor.run()
    assert "you may not get" in str(error)
    assert "ok     secret capnet-mlflow" in output, "the other secrets are looked at all the same"


def test_a_cluster_that_does_not_know_us_or_is_not_there(
    doctor: DoctorCommand, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    token, doctor.cluster.token = doctor.cluster.token, "another"
    assert "does not know you (401)" in str(doctor.run()[1])
    doctor.cluster.token = token
    (tmp_path / "gone").write_text((tmp_path / "kubeconfig").read_text().replace("127.0.0.1:", "127.0.0.1:1#"))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "gone"))
    assert "cannot be reached" in str(doctor.run()[1])
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    assert "no cluster is configured" in str(doctor.run()[1])
    (tmp_path / "broken").write_text(
        "apiVersion: v1\nkind: Config\ncurrent-context: nowhere\ncontexts: []\nclusters: []\nusers: []\n"
    )
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "broken"))
    assert "configuration cannot be used" in str(doctor.run()[1])


def test_a_silent_part_is_told_and_holds_up_nothing_else(
    doctor: DoctorCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("capnet.cluster.kubernetes_api.SECONDS", 0.5)
    doctor.cluster.silent = {"/healthz"}
    start = time.monotonic()
    output, error = doctor.run()
    assert time.monotonic() - start < 8
    assert "no answer within" in str(error)
    assert "ok     service account" in output


def test_in_a_profile_the_account_of_its_runs_is_named(doctor: DoctorCommand) -> None:
    doctor.cluster.healthz["multi_user"] = True
    needs = Needs("s3://bucket/birds", namespace="birds", kfp_namespace=SPACE)
    (check,) = doctor_cluster.check_pipelines(Kubernetes(), needs)
    assert "--service-account default-editor" in check.warning
    (check,) = doctor_cluster.check_pipelines(Kubernetes(), replace(needs, service_account="default-editor"))
    assert check.warning == ""
