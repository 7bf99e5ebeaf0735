"""What surrounds a stage when an orchestrator runs it as a task: data source, seed, GPU check, messages instead of
tracebacks.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any

from capnet.config import Params, parse
from capnet.errors import CapnetError, ConfigError, Problem
from capnet.inline import content_of, inlined
from capnet.redaction import install, redact
from capnet.streams import name_sudden_end

GOOD = ("SUCCEEDED", "COMPLETE")  # of a run; the second one from servers of Kubeflow Pipelines with ML Metadata
# what a container with a GPU of any maker has
DEVICES = ("/dev/nvidia[0-9]*", "/dev/nvidia-caps/*", "/dev/kfd", "/dev/dxg")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """Settings of one task, and ``root``: what its stage gets as input data."""

    params: Params
    root: str = ""


@contextmanager
def task(
    params: Mapping[str, Any], data: str = "", seed: float | None = None, accelerators: float = 0
) -> Iterator[Task]:
    """Prepare a task from plain values; a CapnetError ends the process with its message and exit code.

    Args:
        params: the stage's sections.
        data: folder with source.json; "" for a stage that reads no images.
        seed: takes the place of runtime.seed.
        accelerators: GPUs that the task asked for; where it sees fewer it ends at once.
    """
    install()
    name_sudden_end()
    logging.getLogger().setLevel(logging.WARNING)  # great_expectations alone tells hundreds of lines
    logging.getLogger("capnet").setLevel(logging.INFO)
    try:
        require_accelerators(accelerators)
        settings = parse(params, "the pipeline's parameters")
        if seed is not None:
            settings = with_seed(settings, seed)
        root = ""
        if data:
            settings, root = located(settings, Path(data))
        yield Task(settings, root)
    except CapnetError as error:
        log.error("%s, exit code %d\n%s", error.heading, error.exit_code, error)
        sys.exit(error.exit_code)


def located(settings: Params, folder: Path) -> tuple[Params, str]:
    """Settings whose section data is what ``folder``/source.json says, and the root for the stage's input data."""
    from capnet.data.sources.source import FILES, read_source

    source = read_source(folder)
    if not source.root:
        return settings, str(folder / FILES)
    return settings.model_copy(update={"data": source.settings(settings.data)}), source.root


def with_files(params: Params) -> Params:
    """``params`` with the content of the files in git that stages read: pods have no clone.

    Raises ConfigError or ContractError where one cannot be used, before hours of training.
    """
    from capnet.data.checks.drift import read_reference
    from capnet.data.splits.reference import read_split_reference
    from capnet.promotion.policy import read_policy

    refuse_credentials(params)
    read_policy(params.register_.policy)
    read_reference(params.validate_.reference)
    read_split_reference(params.split.reference)
    changed = {}
    for name, key in (("register_", "policy"), ("validate_", "reference"), ("split", "reference")):
        section = getattr(params, name)
        setting = getattr(section, key)
        if content_of(setting) is None and Path(setting).is_file():
            changed[name] = section.model_copy(update={key: inlined(setting)})
    return params.model_copy(update=changed)


def refuse_credentials(params: Params) -> None:
    """Raise ConfigError where an address holds a password: whoever may look at a run could read it."""
    addresses = (
        ("data.root", params.data.root, "GIT_USERNAME and GIT_PASSWORD from --git-secret"),
        ("register.tracking_uri", params.register_.tracking_uri, "MLFLOW_TRACKING_URI from --mlflow-secret"),
    )
    problems = [
        Problem(
            f"{name} = {address!r} holds a credential, which the page of a run would show",
            "settings",
            f"leave it out of the address: tasks get {instead}",
        )
        for name, address, instead in addresses
        if redact(address) != address
    ]
    if problems:
        raise ConfigError(problems=problems)


def with_seed(settings: Params, seed: float) -> Params:
    """``settings`` for one of several seeds: the model is the one that runtime.seed alone would give."""
    runtime = settings.runtime.model_validate({**settings.runtime.model_dump(), "seed": seed})
    return settings.model_copy(update={"runtime": runtime, "train": settings.train.model_copy(update={"seeds": ()})})


def require_accelerators(count: float) -> None:
    """Raise ConfigError where fewer GPUs are visible than the task asked for; without any device file before torch is
    imported.
    """
    if count <= 0:
        return
    seen = 0
    if any(glob(pattern) for pattern in DEVICES):
        import torch

        seen = torch.cuda.device_count() if torch.cuda.is_available() else 0  # counted also by a driver that is too old
    if seen < count:
        what = f"the task asked for {count:.0f} GPU and sees {seen}"
        todo = (
            "give it a node with GPUs (accelerator type, node selector, tolerations), a driver that is new enough for"
            " the image's CUDA, and the CUDA build of the image, or set accelerator_count to 0"
        )
        raise ConfigError(what, "accelerator_count", todo)


def require_turns(name: str, turns: Sequence[float], expected: Sequence[float]) -> None:
    """Check what a loop of the pipeline goes over.

    The page of a run in Kubeflow Pipelines starts it again with any list, and the task after a loop without turns finds
    nothing to collect.

    Args:
        name: of the run's parameter.
        turns: one turn of the loop each.
        expected: what belongs to the run.

    Raises:
        ConfigError: the list is empty, or another one.
    """
    todo = (
        "start it with python -m pipelines.submit, or change the parameters that belong together alike: seeds,"
        " first_seed and further_seeds; shards and shard_count"
    )
    if not turns:
        raise ConfigError(f"{name} is empty, and this pipeline has a loop over it", f"the run's parameter {name}", todo)
    if list(turns) != list(expected):
        what = f"{name} is {[int(item) for item in turns]}, and {[int(item) for item in expected]} belongs to this run"
        raise ConfigError(what, f"the run's parameter {name}", todo)


def say_outcome(state: str, message: str | None) -> None:
    """One log line about how a run ended.

    Kubeflow Pipelines tells an exit handler the state of all tasks together, and no more: not which of them failed.
    """
    if state in GOOD:
        log.info("the run ended as %s", state)
        return
    if state == "RUNNING":  # KFP's launcher records it, and no launcher runs for what comes from the cache
        why = "a pod vanished, or results came from the cache"
        log.warning("no end of the run is recorded: %s; the run's page shows how it ended", why)
        return
    detail = f": {' '.join(message.split())}" if message else ""
    log.error("the run ended as %s%s; its page shows which task failed, and that task's log says why", state, detail)
