"""What lies in deploy/ says the same as the pipeline: names, keys, claims, mounts, labels; and asks for no more than it
needs.
"""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from contract import deployed
from contract.deployed import manifests, pods
from requests.utils import should_bypass_proxies

from capnet.cluster import names as cluster
from capnet.cluster import trainjob_spec as spec
from pipelines import options, submit, task_setup
from pipelines.prediction import prediction
from pipelines.training import training

base = deployed.base


KEYS = {
    cluster.S3_SECRET: task_setup.S3_KEYS,
    cluster.MLFLOW_SECRET: task_setup.MLFLOW_KEYS,
    cluster.GIT_SECRET: task_setup.GIT_KEYS,
}
CLAIMS = {cluster.STATE_CLAIM: cluster.STATE, cluster.DATA_CLAIM: cluster.DATA}


def test_the_pipelines_take_these_names_where_nothing_else_is_said() -> None:
    expected = {
        "s3_secret": cluster.S3_SECRET,
        "mlflow_secret": cluster.MLFLOW_SECRET,
        "git_secret": cluster.GIT_SECRET,
        "state_claim": cluster.STATE_CLAIM,
        "data_claim": cluster.DATA_CLAIM,
        "accelerator_type": cluster.ACCELERATOR,
    }
    assert {name: spec.Nodes.model_fields[name].default for name in expected if name != "data_claim"} == {
        k: v for k, v in expected.items() if k != "data_claim"
    }
    arguments = {parameter.name: parameter.default for parameter in submit.command.params}
    assert {name: arguments[name] for name in expected} == expected
    for function in (training, prediction):
        inputs = function(options.Options()).pipeline_spec.root.input_definitions.parameters
        assert {name: inputs[name].default_value.string_value for name in expected} == expected


def test_every_secret_has_a_template_with_its_keys_and_no_value(repository: Path) -> None:
    folder = repository / "deploy" / "secrets"
    made = {
        item["name"]: item["envs"]
        for item in yaml.safe_load((folder / "kustomization.yaml").read_text())["secretGenerator"]
    }
    assert made == {name: [f"{name}.env"] for name in KEYS}
    for name, keys in KEYS.items():
        lines = (folder / f"{name}.env.example").read_text().splitlines()
        assert tuple(line for line in lines if not line.startswith("# ")) == tuple(f"#{key}=" for key in keys)
    ignored = subprocess.run(
        ["git", "check-ignore", *(f"deploy/secrets/{name}.env" for name in KEYS)],
        cwd=repository,
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(ignored.stdout.split()) == len(KEYS)


def test_claims_are_those_that_the_pipeline_mounts(base: dict[tuple[str, str], dict[str, Any]]) -> None:
    assert {name for kind, name in base if kind == "PersistentVolumeClaim"} == set(CLAIMS)
    pod = base["Job", "capnet-volumes"]["spec"]["template"]["spec"]
    claimed = {volume["name"]: volume["persistentVolumeClaim"]["claimName"] for volume in pod["volumes"]}
    (container,) = pod["containers"]
    assert {claimed[item["name"]]: item["mountPath"] for item in container["volumeMounts"]} == CLAIMS
    assert all(workspace in container["command"][-1] for workspace in CLAIMS.values())


def test_the_account_may_do_little(base: dict[tuple[str, str], dict[str, Any]]) -> None:
    name = cluster.SERVICE_ACCOUNT
    assert {key for key in base if key[0] in ("ServiceAccount", "Role", "RoleBinding")} == {
        (kind, name) for kind in ("ServiceAccount", "Role", "RoleBinding")
    }
    assert base["RoleBinding", name]["subjects"] == [{"kind": "ServiceAccount", "name": name}]
    assert base["RoleBinding", name]["roleRef"] == {
        "apiGroup": "rbac.authorization.k8s.io",
        "kind": "Role",
        "name": name,
    }
    for rule in base["Role", name]["rules"]:
        assert not any("*" in item for part in ("apiGroups", "resources", "verbs") for item in rule[part])
        if set(rule["resources"]) & {"secrets", "configmaps"}:
            assert rule["verbs"] == ["get"]
            assert rule["resourceNames"]
        assert not {
            "pods/exec",
            "pods/attach",
            "pods/portforward",
            "serviceaccounts/token",
            "roles",
            "rolebindings",
        } & set(rule["resources"])


def test_in_a_profile_tasks_run_as_default_editor_who_has_the_rights_for_several_nodes(repository: Path) -> None:
    path = repository / "deploy" / "overlays" / "profile" / "kustomization.yaml"
    overlay = yaml.safe_load(path.read_text())
    assert "../../nodes" in overlay["components"]
    (patch,) = [item for item in overlay["patches"] if item["target"]["kind"] == "RoleBinding"]
    ((change,), name) = (yaml.safe_load(patch["patch"]), patch["target"]["name"])
    assert name in {item["metadata"]["name"] for item in manifests(repository / "deploy" / "nodes")}
    subject = {"kind": "ServiceAccount", "name": "default-editor", "namespace": overlay["namespace"]}
    assert change == {"op": "add", "path": "/subjects/-", "value": subject}


def test_pods_fit_the_restricted_profile(repository: Path) -> None:
    result = dict(pods(repository))
    assert set(result) == {"capnet-volumes", "mlflow", "capnet-shell"}
    for name, pod in result.items():
        assert (
            pod["securityContext"] | {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
            == pod["securityContext"]
        ), name
        assert pod["securityContext"]["runAsUser"] > 0
        for container in pod["containers"]:
            expected = {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["securityContext"] == expected, name
        assert not any(set(volume) & {"hostPath"} for volume in pod["volumes"])


@pytest.mark.slow
def test_mlflow_starts_with_the_options_of_the_manifest_and_answers_to_its_names(repository: Path) -> None:
    from mlflow.cli import server
    from mlflow.server.security_utils import is_allowed_host_header

    (container,) = dict(pods(repository))["mlflow"]["containers"]
    program, command, *arguments = container["command"]
    assert (program, command) == ("mlflow", "server")
    values = server.make_context("server", arguments).params
    hosts = values["allowed_hosts"].split(",")
    for host in (
        "mlflow.mlflow:5000",
        "mlflow.mlflow.svc:5000",
        "mlflow.mlflow.svc.cluster.local:5000",
        "localhost:5001",
    ):
        assert is_allowed_host_header(hosts, host), host
    assert not is_allowed_host_header(hosts, "evil.example.com:5000")
    (store,) = (item["mountPath"] for item in container["volumeMounts"] if item["name"] == "store")
    assert values["backend_store_uri"].startswith(f"sqlite:///{store}/")
    assert values["artifacts_destination"].startswith(f"{store}/")


@pytest.mark.parametrize("page", ["docs/air-gapped.md", ""])
def test_the_address_of_mlflow_goes_past_a_proxy(repository: Path, page: str) -> None:
    """Without a page, the default of kubeflow/pipelines 2.17.0: backend/src/apiserver/config/proxy/config.go."""
    exempt = (
        "localhost,127.0.0.1,.svc.cluster.local,kubernetes.default.svc,minio-service.kubeflow,metadata-grpc-service,"
        "metadata-grpc-service.kubeflow,ml-pipeline.kubeflow"
    )
    if page:
        (exempt,) = re.findall(r"\| `NO_PROXY` \| `(\S+)` \|", (repository / page).read_text())
    (address,) = re.findall(r"`MLFLOW_TRACKING_URI=(http\S+)`", (repository / "docs" / "on-kubernetes.md").read_text())
    assert should_bypass_proxies(address, no_proxy=exempt)


def test_no_manifest_holds_a_secret(repository: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "deploy"], cwd=repository, capture_output=True, text=True, check=True
    ).stdout.split()
    for path in listed:
        text = (repository / path).read_text()
        assert not re.search(r"^kind: Secret$", text, flags=re.MULTILINE), path
        assert not re.search(r"(?:PASSWORD|SECRET_ACCESS_KEY|TOKEN)=(?!\.\.\.)\S", text), path


def test_locked_images_take_the_place_of_the_example_and_of_nothing_else(repository: Path) -> None:
    from components.images import Images
    from components.manifests import with_locked_images

    images = Images("mine:5000/capnet-data@sha256:" + "a" * 64, "mine:5000/capnet-train@sha256:" + "b" * 64)
    text = (
        "image: registry.example.com/team/capnet-data:latest\nimage:"
        " registry.example.com/team/capnet-train:latest\nimage: other.example.com/capnet-data:1\n"
    )
    assert (
        with_locked_images(text, images)
        == f"image: {images.data}\nimage: {images.train}\nimage: other.example.com/capnet-data:1\n"
    )


def test_make_takes_another_lock(repository: Path, tmp_path: Path) -> None:
    for target in ("push", "deploy"):
        command = [
            "make",
            "--no-print-directory",
            "--dry-run",
            target,
            f"LOCK={tmp_path}/lock.yaml",
            "REGISTRY=localhost:5000",
        ]
        result = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True).stdout
        assert f'"{tmp_path}/lock.yaml"' in result
        assert "images.lock.yaml" not in result
    from components.images import write_lock

    digest = "sha256:" + "a" * 64
    images = {name: (f"localhost:5000/capnet-{name}:x", digest) for name in ("data", "train")}
    write_lock(tmp_path / "lock.yaml", "x", images)
    command = [sys.executable, "-m", "components.manifests", str(tmp_path / "lock.yaml")]
    text = "image: registry.example.com/team/capnet-data:latest\n"
    assert (
        subprocess.run(command, cwd=repository, input=text, capture_output=True, text=True, check=True).stdout
        == f"image: localhost:5000/capnet-data@{digest}\n"
    )


@pytest.mark.parametrize("text", ["kind: NetworkPolicy\n", "image: mine:5000/capnet-data:7\n"])
def test_manifests_without_an_image_of_the_example_need_no_lock(text: str, repository: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "components.manifests", str(tmp_path / "lock.yaml")]
    run = partial(subprocess.run, command, cwd=repository, capture_output=True, text=True, check=False)
    assert run(input=text).stdout == text
    refused = run(input=f"{text}image: registry.example.com/team/capnet-data:latest\n")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "there is no lock of the container images" in refused.stderr


def test_make_finds_the_programs_of_an_environment_elsewhere(repository: Path, tmp_path: Path) -> None:
    for venv, folder in ((".venv", repository / ".venv"), (str(tmp_path), tmp_path)):
        command = ["make", "-pn", f"VENV={venv}", "help"]
        output = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True).stdout
        path = re.search(r"^(?:export )?PATH := (.*)$", output, flags=re.MULTILINE)
        assert path is not None
        assert path[1].startswith(f"{folder}/bin:")


def test_the_workflow_installs_what_tests_of_services_start(repository: Path) -> None:
    lines = (repository / ".ci" / "run").read_text().splitlines()
    installs = (repository / ".github" / "workflows" / "ci.yml").read_text().split()
    for program in ("initdb", "-v chromium", "docker compose version"):
        line = next(line for line in lines if program in line)
        packages = line.partition('missing="$missing ')[2].rstrip('"').split()
        assert packages
        assert set(packages) <= set(installs), program


def test_the_comparison_of_two_runs_sees_every_difference() -> None:
    from cluster.compare import differences

    ours = {"capnet": {"mAP": 0.5, "tail": 0.25}, "slices": {"night": {"capnet": {"mAP": 0.125}}}, "views": 5}
    assert differences(ours, {**ours, "capnet": {"mAP": 0.5 + 9e-7, "tail": 0.25}}, 1e-6) == []
    assert differences(ours, {**ours, "capnet": {"mAP": 0.5 + 2e-6, "tail": 0.25}}, 1e-6) == [
        "capnet/mAP: 0.5 here, 0.500002 there"
    ]
    assert differences(ours, {**ours, "slices": {}}, 1.0) == ["slices/night/capnet/mAP: only in one of the two"]
    bins = {"calibration": [{"count": 3, "mean": 0.5}, {"count": 1, "mean": 0.75}]}
    near = {"calibration": [{"count": 3, "mean": 0.5 + 9e-7}, {"count": 1, "mean": 0.75}]}
    assert differences(bins, near, 1e-6) == []
    assert differences(bins, near, 1e-7) == ["calibration/0/mean: 0.5 here, 0.5000009 there"]
    assert differences(bins, {"calibration": bins["calibration"][:1]}, 1.0) == [
        "calibration/1/count: only in one of the two",
        "calibration/1/mean: only in one of the two",
    ]
    assert differences(ours, {**ours, "capnet": {"mAP": float("nan"), "tail": 0.25}}, 1.0) == [
        "capnet/mAP: 0.5 here, nan there"
    ]


def test_names_live_in_one_place() -> None:
    text = inspect.getsource(options)
    assert not re.search(r'"AWS_|"GIT_|"MLFLOW_', text)
