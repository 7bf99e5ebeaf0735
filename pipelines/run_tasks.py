"""What the server of Kubeflow Pipelines says about the tasks of a run, under the names that the pipeline gives them.

The server lists the nodes of a workflow (seen with release 2.17.0). For one task these are the task, each of its tries,
the driver that prepares it, the step that executes it, and the tries of both; besides them the run, its groups and its
loops.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

TRY = re.compile(r"\((\d+)\)$")
DRIVER = "-driver"


def task_names(text: str) -> dict[str, str]:
    """Names of the tasks of a compiled pipeline that run a container.

    Args:
        text: The compiled pipeline as YAML.

    Returns:
        Key of each task in its group -> the name that is shown.
    """
    import yaml

    spec = next(yaml.safe_load_all(text))
    groups = [part["dag"] for part in (spec["root"], *spec["components"].values()) if "dag" in part]
    return {
        key: task["taskInfo"]["name"]
        for group in groups
        for key, task in group["tasks"].items()
        if "executorLabel" in spec["components"][task["componentRef"]["name"]]
    }


def states(details: Sequence[Any], names: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """Identity, name and state of each task, and of each further try of it.

    Args:
        details: ``run_details.task_details`` of a run.
        names: Those of `task_names`.
    """
    for item in sorted(details, key=lambda item: str(item.start_time or "")):
        shown = item.display_name or ""
        number = int(match[1]) if (match := TRY.search(shown)) else 0
        name = names.get(TRY.sub("", shown))
        if name is None or not item.state or (match and number == 0):
            continue
        # the turns of a loop share their names
        yield item.task_id or shown, f"{name}, try {number + 1}" if number else name, item.state


def failed(details: Sequence[Any], names: Mapping[str, str]) -> list[str]:
    """Names of the tasks that failed, each with the server's reason where it gives one."""
    found = []
    for item in details:
        shown = item.display_name or ""
        key = shown.removesuffix(DRIVER)
        if item.state == "FAILED" and key in names:
            name = names[key] if key == shown else f"the driver of {names[key]}"
            found.append(f"{name}{reason(item)}")
    return found


def reason(item: Any) -> str:
    """The server's words about a run or a task that failed, in brackets."""
    return f" ({' '.join(item.error.message.split())})" if item.error and item.error.message else ""
