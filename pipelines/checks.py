"""Which options of pipelines.submit go together, and which values a cluster would refuse after the data was
prepared.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from capnet.cluster.names import on_volume, unseen
from capnet.errors import ConfigError, Problem

QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?(m|k|[KMGTPE]i?|e[0-9]+)?")  # of Kubernetes, and above zero
NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
QUANTITIES = ("cpu", "memory", "shared_memory")
NAMES = ("s3_secret", "mlflow_secret", "git_secret", "state_claim", "data_claim")
OF_PREDICTION = ("pictures", "model", "shards")


def check_options(pipeline: str, given: Mapping[str, Any]) -> None:
    """Raises ConfigError with all that is wrong."""
    problems = [*together(pipeline, given), *([] if given["local"] else values(given))]
    if problems:
        raise ConfigError(problems=problems)


def check_place(root: str, data_volume: bool) -> None:
    """Raises ConfigError where no pod would find the pictures below ``root``, an address that data.root takes."""
    from capnet.data.sources.root import kind_of

    if kind_of(root) != "folder" or (data_volume and on_volume(root)):
        return
    on_it = Problem(
        f"data.root = {root} is on the volume with pictures, which no task mounts", "data.root", "add --data-volume"
    )
    raise ConfigError(problems=[on_it if on_volume(root) else unseen(root)])


def together(pipeline: str, given: Mapping[str, Any]) -> Iterator[Problem]:
    """An option that would be passed over without a word."""
    for name in ("dry_run", "schedule"):
        if given["local"] and given[name]:
            yield Problem(
                f"{option(name)} is for a cluster, and --local runs at once on this machine",
                option(name),
                "leave one of the two out",
            )
    if given["schedule"] and given["wait"]:
        yield Problem("no run starts now that could be waited for", "--wait, --schedule", "leave one of the two out")
    for name in OF_PREDICTION:
        if pipeline == "training" and given[name]:
            yield Problem(
                f"{option(name)} is for prediction",
                option(name),
                "leave it out; the pictures of a training are data.root",
            )


def values(given: Mapping[str, Any]) -> Iterator[Problem]:
    for name in QUANTITIES:
        if not QUANTITY.fullmatch(given[name]) or not re.search(r"[1-9]", given[name]):
            yield Problem(
                f"{given[name]!r} is no quantity of Kubernetes",
                option(name),
                "write it like 500m or 2 (CPUs), 8Gi or 512Mi (bytes)",
            )
    for name in NAMES:
        if not NAME.fullmatch(given[name]):
            todo = "write the name of one, in small letters, digits, - and .; a secret that is not there does no harm"
            yield Problem(f"{given[name]!r} is no name of an object in Kubernetes", option(name), todo)
    if not given["accelerator_type"]:
        yield Problem(
            "no kind of GPU is named",
            option("accelerator_type"),
            "write nvidia.com/gpu; --accelerator-count 0 asks for none",
        )


def option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
