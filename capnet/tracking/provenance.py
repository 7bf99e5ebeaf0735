"""Where a model comes from: installed packages, the commit of the code, the version of the data."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any

from capnet.config import settings_hash
from capnet.contracts import sha256_file

log = logging.getLogger(__name__)


def requirements(weights: Sequence[str] = ()) -> list[str]:
    """What a model needs besides capnet itself, pinned to what is installed here.

    Args:
        weights: distributions that hold the backbone's weights.

    Returns:
        Lines ``name==version``: capnet's base dependencies and those distributions.
    """
    from packaging.requirements import Requirement

    dependencies = [Requirement(line) for line in distribution("capnet").requires or ()]
    names = [item.name for item in dependencies if item.marker is None or item.marker.evaluate({"extra": ""})]
    names += weights
    pins = []
    for name in names:
        with suppress(PackageNotFoundError):
            pins.append(f"{name}=={version(name).partition('+')[0]}")
    return sorted(set(pins))


def fingerprints(settings: Mapping[str, Any], split: Path) -> dict[str, str]:
    """Tags of a run that say what it was trained from; training and registration compute the same ones.

    Args:
        settings: Sections backbone, tte and train, of params.yaml or of the model's config.json.
        split: Folder of stage split.
    """
    sections = {name: settings[name] for name in ("backbone", "tte", "train")}
    sections["train"] = {**sections["train"], "seeds": []}  # a model has one, which config.json says
    return {
        "settings_fingerprint": settings_hash(sections),
        "split_sha256": sha256_file(split / "split.parquet"),
    }


def git_revision() -> str:
    """The commit of the working directory ("-dirty" behind it where tracked files differ), or what CAPNET_GIT_REVISION
    says; "" without both, and with a warning where git does not read the repository because another account owns it.
    """
    if named := os.environ.get("CAPNET_GIT_REVISION"):
        return named
    try:
        result = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"],
            capture_output=True,
            text=True,
            check=True,
            timeout=20,
        )
    except (OSError, subprocess.SubprocessError) as error:
        reason = " ".join(str(getattr(error, "stderr", "")).split())
        if "safe.directory" in reason:  # what git advises, in any language
            log.warning("the commit is not recorded: %s; or set CAPNET_GIT_REVISION", reason)
        return ""
    return result.stdout.strip()


def dvc_experiment() -> dict[str, str]:
    """The name of the DVC experiment that this process works for, as a run's tag; {} outside of `dvc exp run`."""
    name = os.environ.get("DVC_EXP_NAME", "")
    return {"dvc_experiment": name} if name else {}
