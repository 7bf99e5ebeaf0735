"""Registered versions fetched from the store: to serve one, or to score rows that it was not tested on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from capnet.config import Register, Runtime
from capnet.contracts import read_split
from capnet.errors import DataError
from capnet.serving.engine import load_served

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


def rescorer(champion: ModelVersion, runtime: Runtime, root: Path, split: Path) -> Callable[[pd.DataFrame], np.ndarray]:
    """A function that scores rows with a registered version that was not tested on them.

    Args:
        champion: the version; downloaded when the function is called.
        runtime: the section ``runtime``.
        root: folder of the images.
        split: folder of split.parquet, which has the images' paths by sha256.

    Returns:
        The function: rows with a ``sha256`` to scores float32 [image, class]. It raises DataError where an image is not
        in the split, or its file has changed.
    """
    from capnet.data.images.decode import Unusable, check_sha256, refuse_transient
    from capnet.data.images.views import unusable

    def rescore(rows: pd.DataFrame) -> np.ndarray:
        table = read_split(split / "split.parquet")
        paths = dict(zip(table["sha256"], table["path"], strict=True))
        missing = [key for key in rows["sha256"] if key not in paths]
        if missing:
            what = f"{len(missing)} test images of the candidate are not in this split, e.g. sha256 {missing[0][:16]}"
            raise DataError(what, str(split), "give the split that the candidate was evaluated on (--split)")
        problems = []
        for key in rows["sha256"]:
            try:
                check_sha256(root / paths[key], key)
            except Unusable as error:
                refuse_transient(error, root / paths[key])
                problems.append(unusable(root / paths[key], str(error)))
        if problems:
            raise DataError(problems=problems)
        with TemporaryDirectory() as folder:
            artifacts = download(champion, Path(folder))
            served = load_served(artifacts / "model", artifacts / "thresholds.json", runtime)
            return served.scores([root / paths[key] for key in rows["sha256"]])

    return rescore
