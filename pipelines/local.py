"""The same pipeline object on this machine: in this Python, or in containers from the locked images."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from capnet.errors import ConfigError
from pipelines.errors import RunFailed


def run_here(pipeline: Any, arguments: Mapping[str, Any], runner: Any, root: Path) -> None:
    """Run ``pipeline`` below ``root``; raises RunFailed naming the task that failed.

    What KFP's local runners ignore: GPU, CPU and memory requests, secrets, volumes, node selectors, tolerations, time-outs.
    """
    from kfp import local

    logging.getLogger("kfp").setLevel(logging.INFO)
    root.mkdir(parents=True, exist_ok=True)
    local.init(runner, pipeline_root=str(root), workspace_root=str(root / "workspace"), raise_on_error=True)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*have no effect in the current local runner.*")
            pipeline(**arguments)
    except RuntimeError as error:
        raise RunFailed(" ".join(str(error).split()), str(root), "the task's messages are above; correct the cause and run it again") from None


def subprocess_runner() -> Any:
    """Tasks are processes of this Python; nothing is installed for them."""
    from kfp import local

    os.environ.setdefault("PYTHONPATH", os.getcwd())
    return local.SubprocessRunner(use_venv=False)


def docker_runner(state: Path, pictures: str = "", network: str = "host") -> Any:
    """Tasks are containers that run as this user; ``state`` stands for the state volume, a folder ``pictures`` for the volume with pictures.

    Raises ConfigError where Docker does not answer.
    """
    import docker
    from kfp import local

    from pipelines.options import DATA, STATE

    try:
        docker.from_env().close()
    except docker.errors.DockerException as error:
        todo = "install and start Docker, or set DOCKER_HOST; --local subprocess needs none"
        raise ConfigError(f"Docker does not answer: {' '.join(str(error).split())[:200]}", "--local docker", todo) from None
    state.mkdir(parents=True, exist_ok=True)
    passed = {name: os.environ[name] for name in PASSED if name in os.environ}
    mounts = [{"Type": "bind", "Source": str(state.resolve()), "Target": STATE, "ReadOnly": False}]
    if pictures:
        mounts.append({"Type": "bind", "Source": str(Path(pictures).resolve()), "Target": DATA, "ReadOnly": True})
    return local.DockerRunner(user=f"{os.getuid()}:0", environment=passed, mounts=mounts, network_mode=network)


PASSED = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_ENDPOINT_URL",
    "AWS_DEFAULT_REGION",
    "AWS_EC2_METADATA_DISABLED",
    "MLFLOW_TRACKING_URI",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_S3_ENDPOINT_URL",
    "GIT_USERNAME",
    "GIT_PASSWORD",
)
