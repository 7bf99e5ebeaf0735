"""The same pipeline object on this machine: in this Python, or in containers from the locked images."""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import psutil

from capnet.cluster.names import DATA, GIT_KEYS, MLFLOW_KEYS, S3_KEYS, STATE
from capnet.errors import ConfigError
from capnet.machine_faults import check_writable
from pipelines.console import COLOUR, Console, shortest
from pipelines.errors import RunFailed

INNER = re.compile(r"Inner task failed: '([^']+)'")
AGAIN = "run the same command again; training goes on where it was"
ENGINE = "run the same command again; images that are gone come back with `make images push`"
PASSED = (*S3_KEYS, *MLFLOW_KEYS, *GIT_KEYS, "AWS_EC2_METADATA_DISABLED")  # to containers


def run_here(pipeline: Any, arguments: Mapping[str, Any], runner: Any, root: Path) -> Path:
    """Run ``pipeline`` below ``root`` and return the run's folder; raises RunFailed naming the task that failed or that
    Docker could not run, and ConfigError where nothing can be written.

    What KFP's local runners ignore: GPU, CPU and memory requests, secrets, volumes, node selectors, tolerations,
    time-outs.
    """
    from kfp import local
    from requests import RequestException  # a Docker engine's refusals too

    try:
        root.mkdir(parents=True, exist_ok=True)
        check_writable(root)
    except OSError as error:
        what = f"runs cannot be written there: {error.strerror}"
        raise ConfigError(what, str(root), "name another folder: --runs") from None
    local.init(runner, pipeline_root=str(root), workspace_root=str(root / "workspace"), raise_on_error=True)
    console = Console(sys.stdout, root)
    try:
        with shown(console), terminated_together(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*have no effect in the current local runner.*")
            pipeline(**arguments)
    except RuntimeError as error:
        raise failure(console, str(error)) from None
    except RequestException as error:
        why = " ".join(str(getattr(error, "explanation", None) or error).split())
        what = f"Docker could not run the task {console.task.label}: {why[:400]}"
        raise RunFailed(what, shortest(console.log), ENGINE) from None
    except KeyboardInterrupt:
        raise RunFailed(
            f"the run was interrupted in {console.task.label or 'its first second'}", shortest(console.log), AGAIN
        ) from None
    return console.run or root


@contextmanager
def terminated_together() -> Iterator[None]:
    """A SIGTERM, as `timeout` sends it to this process alone, ends the task too, and is a KeyboardInterrupt here."""

    def end(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                process.terminate()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def shown(console: Console) -> Iterator[None]:
    """What KFP prints and logs goes through ``console``."""
    logger = logging.getLogger()
    level, handler = logger.level, logging.StreamHandler(console)
    handler.setFormatter(logging.Formatter("%(asctime)s.%(msecs)03d - %(levelname)s - %(message)s", "%H:%M:%S"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with redirect_stdout(console):
            yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        console.end_line()


def failure(console: Console, message: str) -> RunFailed:
    """Which task ended the run, and why as far as it is known."""
    task = console.failed[0] if console.failed else None
    inner = INNER.search(COLOUR.sub("", message))
    if task is None or inner is None:
        return RunFailed(
            " ".join(message.split()),
            shortest(console.log),
            "the whole log is there; correct the cause and run it again",
        )
    if task.mistake or task.explained:
        what = f"the task {task.label} failed" + (f": {task.mistake}" if task.mistake else "")
        return RunFailed(what, shortest(console.log), "its message is above; correct the cause and run it again")
    return RunFailed(
        f"the task {task.label} ended without a message: it was killed, or memory ran out", shortest(console.log), AGAIN
    )


def subprocess_runner() -> Any:
    """Tasks are processes of this Python; nothing is installed for them."""
    from kfp import local

    os.environ.setdefault("PYTHONPATH", os.getcwd())
    return local.SubprocessRunner(use_venv=False)


def docker_runner(state: Path, pictures: str, network: str) -> Any:
    """Tasks are containers that run as this user; ``state`` stands for the state volume, a folder ``pictures`` for the
    volume with images ("": there is none).

    Raises ConfigError where Docker does not answer.
    """
    import docker
    from kfp import local

    try:
        docker.from_env().close()
    except docker.errors.DockerException as error:
        todo = "install and start Docker, or set DOCKER_HOST; --local subprocess needs none"
        raise ConfigError(
            f"Docker does not answer: {' '.join(str(error).split())[:200]}", "--local docker", todo
        ) from None
    state.mkdir(parents=True, exist_ok=True)
    passed = {name: os.environ[name] for name in PASSED if name in os.environ}
    mounts = [{"Type": "bind", "Source": str(state.resolve()), "Target": STATE, "ReadOnly": False}]
    if pictures:
        mounts.append({"Type": "bind", "Source": str(Path(pictures).resolve()), "Target": DATA, "ReadOnly": True})
    return local.DockerRunner(user=f"{os.getuid()}:0", environment=passed, mounts=mounts, network_mode=network)
