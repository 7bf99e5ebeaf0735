"""Manifests, scripts and workflows through the programs that will read them: kubectl, Kubernetes' schemas, shellcheck,
GitHub's schema.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

FOLDERS = (
    "deploy/overlays/standalone",
    "deploy/overlays/profile",
    "deploy/overlays/nodes",
    "deploy/mlflow",
    "deploy/shell",
    "deploy/cloud-role",
)
VERSIONS = ("1.25", "1.37")  # the oldest and the newest whose schemas there are


def tool(name: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name(name), *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )


def built(repository: Path, folder: str) -> str:
    result = tool("kubectl", "kustomize", folder, cwd=repository)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("folder", FOLDERS)
def test_kustomize_builds_what_kubernetes_knows(folder: str, repository: Path, tmp_path: Path) -> None:
    text = built(repository, folder)
    path = tmp_path / "all.yaml"
    path.write_text(text)
    for version in VERSIONS:
        result = tool("kubernetes-validate", "--strict", "-k", version, str(path), cwd=tmp_path)
        assert result.returncode == 0, result.stdout + result.stderr
    actual = list(yaml.safe_load_all(text))
    (namespace,) = {item["metadata"].get("namespace") for item in actual if item["kind"] != "Namespace"}
    assert namespace
    for item in actual:
        for subject in item.get("subjects", ()):
            assert subject["namespace"] == namespace
        template = item.get("spec", {}).get("template", {}).get("spec") or (
            item["spec"] if item["kind"] == "Pod" else {"containers": []}
        )
        assert all(
            container["image"].startswith("registry.example.com/team/capnet-") for container in template["containers"]
        )


def test_the_profile_changes_what_it_says(repository: Path) -> None:
    result: dict[tuple[str, str], Any] = {
        (item["kind"], item["metadata"]["name"]): item for item in yaml.safe_load_all(built(repository, FOLDERS[1]))
    }
    for name in ("capnet-state", "capnet-data"):
        claim = result["PersistentVolumeClaim", name]["spec"]
        assert (claim["accessModes"], claim["storageClassName"]) == (["ReadWriteMany"], "shared-files")
    assert result["ServiceAccount", "capnet-pipeline"]["imagePullSecrets"] == [{"name": "registry-key"}]
    subjects = {item["name"] for item in result["RoleBinding", "capnet-nodes"]["subjects"]}
    assert subjects == {"capnet-pipeline", "default-editor"}


def test_several_nodes_share_the_state_volume_and_the_account_may_start_them(repository: Path) -> None:
    result: dict[tuple[str, str], Any] = {
        (item["kind"], item["metadata"]["name"]): item for item in yaml.safe_load_all(built(repository, FOLDERS[2]))
    }
    assert result["PersistentVolumeClaim", "capnet-state"]["spec"]["accessModes"] == ["ReadWriteMany"]
    assert result["PersistentVolumeClaim", "capnet-data"]["spec"]["accessModes"] == ["ReadWriteOnce"]
    assert {name for kind, name in result if kind in ("Role", "NetworkPolicy")} == {
        "capnet-pipeline",
        "capnet-nodes",
        "capnet-tasks",
    }


def test_the_schemas_refuse_a_wrong_field(repository: Path, tmp_path: Path) -> None:
    path = tmp_path / "all.yaml"
    path.write_text(built(repository, FOLDERS[0]).replace("ttlSecondsAfterFinished", "ttlSecondsAfterFinish"))
    result = tool("kubernetes-validate", "--strict", "-k", VERSIONS[1], str(path), cwd=tmp_path)
    assert result.returncode != 0
    assert "ttlSecondsAfterFinish" in result.stdout + result.stderr


def test_filled_templates_become_the_three_secrets(repository: Path, tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    shutil.copytree(repository / "deploy" / "secrets", folder, ignore=shutil.ignore_patterns("*.env"))
    for path in folder.glob("*.env.example"):
        lines = path.read_text().splitlines()
        path.with_suffix("").write_text(
            "\n".join(line if line.startswith("# ") else f"{line.removeprefix('#')}value" for line in lines)
        )
    result = list(yaml.safe_load_all(tool("kubectl", "kustomize", str(folder), cwd=tmp_path).stdout))
    from capnet.cluster import names as cluster

    keys = {item["metadata"]["name"]: set(item["data"]) for item in result}
    assert keys == {
        cluster.S3_SECRET: set(cluster.S3_KEYS),
        cluster.MLFLOW_SECRET: set(cluster.MLFLOW_KEYS),
        cluster.GIT_SECRET: set(cluster.GIT_KEYS),
    }


def test_untouched_templates_become_empty_secrets(repository: Path, tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    shutil.copytree(repository / "deploy" / "secrets", folder, ignore=shutil.ignore_patterns("*.env"))
    for path in folder.glob("*.env.example"):
        path.rename(path.with_suffix(""))
    result = list(yaml.safe_load_all(tool("kubectl", "kustomize", str(folder), cwd=tmp_path).stdout))
    assert [item.get("data") or {} for item in result] == [{}] * 3, (
        "an empty value would hide what the pod has from elsewhere"
    )


def test_shell_scripts_hold_no_trap(repository: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", ".ci", "tests", "deploy"], cwd=repository, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    scripts = [
        path
        for path in listed
        if (repository / path).is_file()
        and (repository / path).read_bytes().startswith((b"#!/usr/bin/env bash", b"#!/bin/sh"))
    ]
    assert {".ci/run", "tests/cluster/run"} <= set(scripts)
    result = tool("shellcheck", "--severity=warning", *scripts, cwd=repository)
    assert result.returncode == 0, result.stdout


def test_workflows_fit_the_schema_of_github(repository: Path, tmp_path: Path) -> None:
    workflows = sorted(str(path) for path in (repository / ".github" / "workflows").glob("*.yml"))
    assert len(workflows) >= 2
    result = tool("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *workflows, cwd=repository)
    assert result.returncode == 0, result.stdout
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(Path(workflows[0]).read_text().replace("runs-on", "run-on"))
    assert (
        tool("check-jsonschema", "--builtin-schema", "vendor.github-workflows", str(wrong), cwd=repository).returncode
        != 0
    )


def test_printed_kubectl_commands_have_options_that_there_are(repository: Path) -> None:
    seen = 0
    for document in ("docs/on-kubernetes.md", "docs/air-gapped.md", "tests/cluster/run", "Makefile"):
        for words in re.findall(r"\bkubectl (?:-n \S+ )?([a-z][a-z-]+[^`|)\n]*)", (repository / document).read_text()):
            name, *rest = words.split()
            help_text = tool("kubectl", name, "--help", cwd=repository).stdout
            if not help_text.startswith("Usage") and "Usage:" not in help_text:
                assert name == "and", f"{document}: kubectl {name}"
                continue
            if name == "create" and rest[0] in ("secret", "token"):
                kind = rest[: 2 if rest[0] == "secret" else 1]  # such as secret generic
                help_text = tool("kubectl", "create", *kind, "--help", cwd=repository).stdout
            help_text += tool("kubectl", "options", cwd=repository).stdout
            for flag in re.findall(r"(?<= )--[a-z-]+", words):
                assert f"{flag}=" in help_text, f"{document}: kubectl {name} has no {flag}"
                seen += 1
    assert seen > 15
