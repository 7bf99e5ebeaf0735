"""Compiled pipelines, taken apart: the specification, its tasks and containers, and the settings of each."""

from __future__ import annotations

from functools import cache
from typing import Any

import yaml

from components.images import read_lock
from pipelines import compiling
from pipelines.options import Options

LOCK = read_lock(compiling.GOLDEN_LOCK)


@cache
def documents(name: str, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Specification, and settings per executor (without the prefix exec-)."""
    text = compiling.compile_text(compiling.PIPELINES[name](Options(**{"images": LOCK, **options})))
    spec, *platform = yaml.load_all(text, yaml.CSafeLoader)
    executors = platform[0]["platforms"]["kubernetes"]["deploymentSpec"]["executors"] if platform else {}
    return spec, {name.removeprefix("exec-"): settings for name, settings in executors.items()}


def tasks(spec: dict[str, Any]) -> dict[str, Any]:
    """The tasks inside the exit handler."""
    result: dict[str, Any] = spec["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    return result


def containers(spec: dict[str, Any]) -> dict[str, Any]:
    return {name.removeprefix("exec-"): item["container"] for name, item in spec["deploymentSpec"]["executors"].items()}
