"""What lies in deploy/."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml


def manifests(folder: Path) -> list[dict[str, Any]]:
    return [
        item
        for path in sorted(folder.glob("*.yaml"))
        if path.name != "kustomization.yaml"
        for item in yaml.safe_load_all(path.read_text())
    ]


@pytest.fixture(scope="module")
def base(repository: Path) -> dict[tuple[str, str], dict[str, Any]]:
    return {(item["kind"], item["metadata"]["name"]): item for item in manifests(repository / "deploy" / "base")}


def pods(repository: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for folder in ("base", "mlflow", "shell"):
        for item in manifests(repository / "deploy" / folder):
            if item["kind"] in ("Job", "Deployment", "Pod"):
                yield (
                    item["metadata"]["name"],
                    item["spec"] if item["kind"] == "Pod" else item["spec"]["template"]["spec"],
                )
