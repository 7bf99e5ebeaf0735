"""Registration as the stage does it, and what a store says of it."""

from __future__ import annotations

import json
import os
from pathlib import Path

from mlflow.tracking import MlflowClient

from capnet.config import Register
from capnet.registry.candidate import read_candidate
from capnet.registry.register import register_version, registered

SETTINGS = Register()


def register_outputs(paths: dict[str, Path], settings: Register = SETTINGS, data_md5: str = "") -> str:
    """Register as the stage does, registration.json included; the version number as text."""
    candidate = read_candidate(**paths)
    result = register_version(settings, candidate, paths["evaluation"] / "report.html", data_md5)
    record = {"schema": 1, "name": settings.name, "alias": settings.alias, "content_hash": candidate.content_hash}
    record_of(paths).write_text(json.dumps(record))
    return str(result.version)


def record_of(paths: dict[str, Path]) -> Path:
    return paths["model"].parent / "registration.json"


def is_registered(paths: dict[str, Path], settings: Register = SETTINGS) -> bool:
    return registered(settings, record_of(paths), paths["model"], paths["evaluation"])


def new_client() -> MlflowClient:
    return MlflowClient(os.environ["MLFLOW_TRACKING_URI"])


def versions_of(client: MlflowClient, name: str = "capnet") -> list[str]:
    return sorted(str(item.version) for item in client.search_model_versions(f"name = '{name}'"))
