"""A cluster after `make deploy`, and the command that looks at it."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from contract.kubernetes_server import Cluster, serving

from capnet.cli import main
from capnet.cluster import names
from capnet.cluster.kubernetes_api import ClusterError

SPACE = names.NAMESPACE
VALUE = "a-value-that-nobody-may-see"


def secret(name: str, **values: str) -> dict[str, Any]:
    return {
        "kind": "Secret",
        "metadata": {"name": name},
        "data": {key: base64.b64encode(value.encode()).decode() for key, value in values.items()},
    }


def node(name: str, gpus: int, **spec: Any) -> dict[str, Any]:
    allocatable = {"cpu": "8"} | ({names.ACCELERATOR: str(gpus)} if gpus else {})
    return {
        "metadata": {"name": name},
        "spec": spec,
        "status": {"allocatable": allocatable, "conditions": [{"type": "Ready", "status": "True"}]},
    }


@dataclass
class DoctorCommand:
    """A cluster, and the command that looks at it."""

    cluster: Cluster
    params: str

    def run(self, *arguments: str, root: str = "s3://bucket/birds") -> tuple[str, ClusterError | None]:
        result = CliRunner().invoke(
            main, ["doctor", "--cluster", "--params", self.params, "--set", f"data.root={root}", *arguments]
        )
        if result.exception is not None and not isinstance(result.exception, ClusterError):
            raise AssertionError(result.output) from result.exception
        assert VALUE not in result.output + str(result.exception)
        assert self.cluster.token not in result.output + str(result.exception)
        return result.output, result.exception if isinstance(result.exception, ClusterError) else None


@pytest.fixture
def doctor(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DoctorCommand]:
    """A cluster after `make deploy`, with filled secrets and a node with a GPU."""
    cluster = Cluster()
    cluster.objects[f"/api/v1/namespaces/{SPACE}"] = {"kind": "Namespace"}
    for path in (repository / "deploy" / "base").glob("*.yaml"):
        cluster.apply(
            SPACE, *(item for item in yaml.safe_load_all(path.read_text()) if item["kind"] != "Kustomization")
        )
    for name in (names.STATE_CLAIM, names.DATA_CLAIM):
        claim = cluster.find(SPACE, "persistentvolumeclaims", name)
        claim["spec"]["storageClassName"] = "local"
        claim["status"] = {"phase": "Bound", "capacity": {"storage": "50Gi"}}
    cluster.apply(
        SPACE,
        secret(names.S3_SECRET, AWS_ACCESS_KEY_ID=VALUE, AWS_SECRET_ACCESS_KEY=VALUE),
        secret(names.MLFLOW_SECRET, MLFLOW_TRACKING_URI=VALUE),
    )
    cluster.objects["/api/v1/nodes/a"] = node("a", 0)
    cluster.objects["/api/v1/nodes/b"] = node("b", 2, taints=[{"key": names.ACCELERATOR, "effect": "NoSchedule"}])
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with serving(cluster, tmp_path) as path:
        monkeypatch.setenv("KUBECONFIG", str(path))
        yield DoctorCommand(cluster, str(repository / "params.yaml"))
