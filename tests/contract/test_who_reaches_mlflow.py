"""MLflow's accounts are not relied on alone: who reaches its servers, and who reads what DVC pickles."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml

from capnet.data.sources import dvc_versions
from capnet.state import state_dir


def documents(path: Path) -> list[Any]:
    return [item for item in yaml.safe_load_all(path.read_text()) if item]


def test_compose_listens_on_this_machine_and_keeps_its_stores_apart(repository: Path) -> None:
    content = yaml.safe_load((repository / "mlflow" / "compose.yaml").read_text())
    services = content["services"]
    assert {name: item.get("ports", []) for name, item in services.items()} == {
        "mlflow": ["${MLFLOW_LISTEN:-127.0.0.1:5000}:5000"],
        "database": [],
        "store": [],
    }
    assert not [name for name, item in services.items() if item.get("network_mode")]
    closed = {name for name, item in content["networks"].items() if item and item.get("internal")}
    for name in ("database", "store"):
        assert set(services[name]["networks"]) <= closed, f"{name} needs no way out"
    assert set(services["mlflow"]["networks"]) & closed
    example = (repository / "mlflow" / ".env.example").read_text()
    assert not re.search(r"MLFLOW_LISTEN=(0\.0\.0\.0|\[::\]|\*)", example), "what is suggested is copied"


def test_only_pods_of_the_pipelines_reach_the_server_in_a_cluster(repository: Path) -> None:
    by_name = documents(repository / "deploy" / "mlflow" / "server.yaml")
    (policy,) = [item["spec"] for item in by_name if item["kind"] == "NetworkPolicy"]
    (pods,) = [item["spec"]["template"]["metadata"]["labels"] for item in by_name if item["kind"] == "Deployment"]
    assert policy["podSelector"]["matchLabels"].items() <= pods.items()
    assert (sorted(policy["policyTypes"]), policy["egress"]) == (["Egress", "Ingress"], [])
    (rule,) = policy["ingress"]
    assert rule["ports"] == [{"port": 5000, "protocol": "TCP"}]
    (source,) = rule["from"]
    assert source["podSelector"]["matchLabels"] == {"capnet/role": "task"}
    (expression,) = source["namespaceSelector"]["matchExpressions"]
    assert (expression["key"], expression["operator"], expression["values"]) == (
        "kubernetes.io/metadata.name",
        "In",
        ["kubeflow"],
    ), "a label of a pod is anybody's to set, in a namespace of one's own"
    (service,) = [item["spec"] for item in by_name if item["kind"] == "Service"]
    assert service.get("type", "ClusterIP") == "ClusterIP"


def test_a_state_folder_is_its_owners_alone_and_a_volume_keeps_its_modes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = os.umask(0o002)
    try:
        monkeypatch.setenv("CAPNET_STATE", str(tmp_path / "new"))
        state_dir("features")
        assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
        volume = tmp_path / "volume"
        volume.mkdir()
        volume.chmod(0o775)
        monkeypatch.setenv("CAPNET_STATE", str(volume))
        state_dir("features")
        assert stat.S_IMODE(volume.stat().st_mode) == 0o775
    finally:
        os.umask(before)


def test_dvc_reads_no_pickle_that_others_can_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository: Path
) -> None:
    from dvc.dirs import site_cache_dir

    monkeypatch.setenv("DVC_SITE_CACHE_DIR", "to be put back")
    monkeypatch.delenv("DVC_SITE_CACHE_DIR")
    assert site_cache_dir() == "/var/tmp/dvc", "which is why"
    (tmp_path / ".dvc").mkdir()
    assert dvc_versions.remotes(tmp_path) == []
    folder = Path(site_cache_dir())
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "chosen"))
    dvc_versions.remotes(tmp_path)
    assert site_cache_dir() == str(tmp_path / "chosen"), "a person's choice stays"
    assert "export DVC_SITE_CACHE_DIR ?= $(CURDIR)/.dvc/tmp/site\n" in (repository / "Makefile").read_text()
