"""Every shape that our pipelines are compiled in, what they are started with, and what their tasks ask a cluster for.

`PYTHONPATH=.:tests python -m contract.cluster_shapes` writes the table in docs/resources.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from contract import kfp_pod, kfp_rules
from contract.test_pipeline_types import OTHERS, PARAMS

from capnet.cluster.names import DATA, STATE
from components.images import read_lock
from pipelines import compiling
from pipelines.arguments import prediction_arguments, training_arguments
from pipelines.checks import MOST_SHARDS
from pipelines.options import Options

GPU = {"accelerator_count": "1", "memory": "24Gi", "cpu": "8"}
SHAPES: dict[str, tuple[str, Options]] = {
    **compiling.GOLDEN_PIPELINES,
    **{name: shape for name, shape in OTHERS.items() if shape[1].cluster},
    "training-from-a-private-registry": ("training", Options(pull_secret=True, further_seeds=True, state_volume=False)),
    "prediction-from-a-private-registry": ("prediction", Options(pull_secret=True, data_volume=True)),
}
PAGE = Path(__file__).parents[2] / "docs" / "resources.md"
BEGIN, END = "<!-- resources: written by python -m contract.cluster_shapes -->", "<!-- end of resources -->"
COLUMNS = ("task", "CPU", "memory", "limit of memory", "GPU", "volumes", "hours")


@cache
def compiled(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Specification, and the platform's settings by executor."""
    kind, options = SHAPES[name]
    images = read_lock(compiling.GOLDEN_LOCK)
    return kfp_rules.read(compiling.compile_text(compiling.PIPELINES[kind](replace(options, images=images))))


def runs(name: str, shards: tuple[int, ...] = (1, 2, 8, 40, MOST_SHARDS)) -> Iterator[dict[str, Any]]:
    """What a pipeline is started with: 1 to 3 seeds, 1 to 100 parts, on CPUs and on GPUs."""
    kind, options = SHAPES[name]
    more: dict[str, str]
    for more in ({}, GPU):
        if kind == "prediction":
            for parts in shards:
                yield prediction_arguments(PARAMS, "", parts, "today") | more
            continue
        for seeds in ((0, 1), (0, 1, 2)) if options.further_seeds else ((), (7,)):
            train = PARAMS.train.model_copy(update={"seeds": seeds})
            yield training_arguments(PARAMS.model_copy(update={"train": train}), "today") | more


def rows(name: str) -> Iterator[tuple[str, ...]]:
    """What each task asks for as it comes, and with a GPU where that makes a difference."""
    spec, platform = compiled(name)
    every = list(runs(name, (1,)))
    plain, with_gpu = (
        dict(kfp_pod.pods(spec, platform, arguments)) for arguments in (every[0], every[len(every) // 2])
    )
    for where, pod in plain.items():
        task = where.rpartition("/")[2]
        yield f"`{task}`", *asked(pod), *around(pod)
        if asked(with_gpu[where]) != asked(pod):
            yield f"`{task}` with a GPU", *asked(with_gpu[where]), *around(pod)


def asked(pod: dict[str, Any]) -> tuple[str, ...]:
    result = pod["spec"]["containers"][0]["resources"]
    gpus = [f"{value} `{kind}`" for kind, value in result["limits"].items() if "/" in kind and value != "0"]
    plain = (result["requests"].get("cpu"), result["requests"].get("memory"), result["limits"].get("memory"))
    return *(item or "-" for item in plain), " ".join(gpus) or "-"


def around(pod: dict[str, Any]) -> tuple[str, str]:
    """Volumes that outlive the pod, shared memory, and the time limit."""
    main, volumes = pod["spec"]["containers"][0], {item["name"]: item for item in pod["spec"]["volumes"]}
    mounts = {item["mountPath"]: volumes[item["name"]] for item in main["volumeMounts"]}
    named = [path for path in (STATE, DATA) if "persistentVolumeClaim" in mounts.get(path, {})]
    if "/dev/shm" in mounts:
        named.append(f"/dev/shm of {mounts['/dev/shm']['emptyDir']['sizeLimit']}")
    return ", ".join(named) or "-", f"{pod['spec']['activeDeadlineSeconds'] / 3600:g}"


def table(name: str) -> list[str]:
    lines = [f"## {name.replace('-', ' ').capitalize()}", "", f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows(name)), ""]


def written(text: str) -> str:
    """``text`` of the page with fresh tables."""
    lines = [line for name in compiling.GOLDEN_PIPELINES for line in table(name)]
    return "\n".join([text.partition(BEGIN)[0] + BEGIN, "", *lines, END]) + text.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
