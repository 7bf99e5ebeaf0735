"""Registered versions fetched from the store, to be served."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from capnet.config import Register

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion


def fetch_version(settings: Register, address: str, folder: Path) -> tuple[Path, str]:
    """Download a registered version.

    Args:
        settings: the section ``register``, which says where the registry is.
        address: models:/NAME@ALIAS, models:/NAME/VERSION or models:/NAME.
        folder: that it is written to.

    Returns:
        The folder of its own files, below ``folder``, and its name for messages.

    Raises:
        ConfigError: ``address`` is no address of a registered model.
        GateError: the gate refuses it.
        ContractError: the store has no files of it, or others.
    """
    from capnet.promotion.champion import identity, resolve
    from capnet.promotion.versions import require_files
    from capnet.tracking.faults import GET
    from capnet.tracking.store import store

    with store(settings, GET, reads=True) as client:
        version = resolve(client, address)
        require_files(client, version)
        artifacts = download(version, folder)
    return artifacts, f"{identity(version.name, version.version)} ({version.tags.get('content_hash', '')[:8]})"


def download(version: ModelVersion, folder: Path) -> Path:
    """The artifact's own files (model/, thresholds.json, reference.json) of a registered version, below ``folder``."""
    from mlflow.artifacts import download_artifacts

    from capnet.promotion.champion import check_files

    location = download_artifacts(f"models:/{version.name}/{version.version}", dst_path=str(folder))
    artifacts = Path(location) / "artifacts"
    check_files(version, artifacts)
    return artifacts
