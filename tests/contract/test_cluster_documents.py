"""What the steps of documents and scripts meet on a cluster, by the rules of the programs that they call; each rule
names the source that it restates.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

import yaml
from contract.deployed import manifests

PAGE, WITHOUT_NETWORK = "docs/on-kubernetes.md", "docs/air-gapped.md"


def copied(folders: set[str], source: str, target: str) -> str:
    """The folder that a copied folder is in afterwards, by kubernetes v1.33, staging/src/k8s.io/kubectl/pkg/cmd/cp:
    inside the target where that is a folder (cp.go, copyToPod; filespec.go, Base and Join), else the target itself,
    whose parent tar enters first.
    """
    if target in folders:
        target = posixpath.normpath(posixpath.join(target, posixpath.basename(source)))
    assert posixpath.dirname(target) in folders, f"tar: {posixpath.dirname(target)}: No such file or directory"
    folders.add(target)
    return target


def mounted(repository: Path) -> set[str]:
    (pod,) = manifests(repository / "deploy" / "shell")
    return {item["mountPath"] for item in pod["spec"]["containers"][0]["volumeMounts"]}


def copies(repository: Path) -> Iterator[tuple[str, str]]:
    text = (repository / PAGE).read_text()
    yield from re.findall(r"^kubectl -n \S+ cp (\S+) capnet-shell:(\S+)", text, flags=re.MULTILINE)


def test_what_is_copied_a_second_time_goes_into_the_same_folder(repository: Path) -> None:
    folders, targets = mounted(repository), [target for _, target in copies(repository)]
    assert targets
    for _ in range(2):
        assert [copied(folders, *pair) for pair in copies(repository)] == targets


def test_weights_are_copied_to_where_the_setting_names_them(repository: Path) -> None:
    folders = mounted(repository)
    made = [copied(folders, *pair) for pair in copies(repository)]
    for document in (PAGE, WITHOUT_NETWORK):
        (weights,) = re.findall(r"pretrained: (/var/[\w/]+)/\w+\.safetensors", (repository / document).read_text())
        assert weights in made, document


def test_a_namespace_is_made_before_anything_is_put_into_it(repository: Path) -> None:
    """A secret needs its namespace, which deploy/mlflow makes only together with the pods that need the secret."""
    kinds = {item["kind"]: item for item in manifests(repository / "deploy" / "mlflow")}
    (before,) = re.findall(r"[^.]*\bbefore\s+`make deploy FOLDER=mlflow`", (repository / PAGE).read_text())
    assert f"kubectl create namespace {kinds['Namespace']['metadata']['name']}" in before


def test_the_objects_of_the_server_come_after_its_namespace_and_definitions(repository: Path) -> None:
    """kubeflow/pipelines 2.17.0, manifests/kustomize: env/platform-agnostic has neither, cluster-scoped-resources
    both.
    """
    for document in (PAGE, WITHOUT_NETWORK):
        folders = re.findall(r"manifests/kustomize/([\w/-]+)\?ref=", (repository / document).read_text())
        assert folders == ["cluster-scoped-resources", "env/platform-agnostic"], document


def test_without_a_network_no_job_of_a_chart_fetches_a_program(repository: Path) -> None:
    """kubeflow/trainer v2.3.0, charts/kubeflow-trainer/templates/runtimes/installer-job.yaml: apk add kubectl."""
    text = (repository / WITHOUT_NETWORK).read_text()
    assert re.search(r"without\s+`--set runtimes\.defaultEnabled=true`", text)
    assert "manifests/base/runtimes/torch_distributed.yaml" in text


def test_every_server_that_the_pipelines_run_on_hardens_their_pods(repository: Path) -> None:
    """kubeflow/pipelines 2.16.0 and 2.17.0, backend/src/v2/compiler/argocompiler/security_context.go
    (applySecurityContextToExecutorTemplate); 2.15.0 has no such file.
    """
    release = yaml.safe_load((repository / "tests" / "contract" / "kfp_release.yaml").read_text())
    oldest, _, _ = release["servers"][0].rpartition(".")
    for path in (PAGE, "pipelines/task_setup.py"):
        (named,) = re.findall(r"server(?:s? of KFP)?,?\s+\(?from ([\d.]+\d) on", (repository / path).read_text(), re.I)
        assert named == oldest, path


def test_kserve_gets_its_namespace_and_definitions_first(repository: Path) -> None:
    """kserve/kserve v0.20.0, hack/release/generate-install.sh: kserve.yaml is made without its Namespace, and has the
    ClusterStorageContainer of config/base, whose kind kubectl must know before.
    """
    text = (repository / "tests" / "cluster" / "admission").read_text()
    steps = ("create namespace kserve ", "kserve-crds.yaml", "established", "/kserve.yaml", "-n kserve wait")
    positions = [text.find(words) for words in steps]
    assert -1 not in positions
    assert positions == sorted(positions)
