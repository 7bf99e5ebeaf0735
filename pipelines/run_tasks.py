"""What the server of Kubeflow Pipelines says about the tasks of a run, under the names that the pipeline gives them.

The server lists the nodes of a workflow (seen with release 2.17.0). For one task these are the task, each of its tries,
the driver that prepares it, the step that executes it, and the tries of both; besides them the run, its groups and its
loops.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

TRY = re.compile(r"\((\d+)\)$")
DRIVER = "-driver"
STEP = "executor"  # of every task; the server does not say of which


def task_names(text: str) -> dict[str, str]:
    """Names of the tasks of a compiled pipeline that run a container.

    Args:
        text: The compiled pipeline as YAML.

    Returns:
        Key of each task in its group -> the name that is shown.
    """
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
        key = TRY.sub("", shown)
        name = names.get(key) or ("a task" if key == STEP and number else None)
        if name is None or not item.state or (match and number == 0):
            continue
        # the turns of a loop share their names
        yield item.task_id or shown, f"{name}, try {number + 1}" if number else name, item.state


def waiting(details: Sequence[Any]) -> set[str]:
    """Identities of what waits for its pod to start; the task itself is listed as running all that time."""
    return {str(item.task_id) for item in details if item.state == "PENDING"}


def reasons(details: Sequence[Any], namespace: str) -> str:
    """The command that shows what Argo says of pods that were not made or placed, were evicted, or got no image; the
    server does not pass it on. "" where no pod is listed.
    """
    pods = (child.pod_name for item in details for child in item.child_tasks or () if child.pod_name)
    workflow = next(pods, "").rpartition("-")[0]
    return f"kubectl -n {namespace} describe workflow {workflow} | grep Message | sort -u" if workflow else ""


def bad_end(run: Any, names: Mapping[str, str], namespace: str) -> tuple[str, str]:
    """What a run ended with that did not succeed, and what to do about it.

    Args:
        run: As the server gives it.
        names: Those of `task_names`.
        namespace: Of the run's pods.
    """
    details = (run.run_details.task_details if run.run_details else None) or []
    tasks = "; ".join(failed(details, names))
    # a run that is cancelled ends as FAILED: its tasks exceed a deadline of no seconds
    if run.state == "CANCELED" or any(item.state == "CANCELING" for item in run.state_history or ()):
        what = f"the run was cancelled{f', and with it: {tasks}' if tasks else ''}"
        return what, "start it again: training goes on at its last checkpoint"
    what = f"the run ended as {run.state}: {tasks or 'no task named'}{reason(run)}"
    todo = "the task's log on that page says why"
    if why := reasons(details, namespace):
        todo += f"; where it has none: {why}"
    return what, todo


def failed(details: Sequence[Any], names: Mapping[str, str]) -> list[str]:
    """Names of the tasks that failed, each with the server's reason where it gives one."""
    drivers = {key + DRIVER: f"the driver of {name}" for key, name in names.items()}
    shown = {**names, **drivers, f"root{DRIVER}": "the driver of the run"}
    ended = {
        f"{shown[item.display_name]}{reason(item)}": None
        for item in details
        if item.state == "FAILED" and item.display_name in shown
    }
    return list(ended)  # Argo may try the whole run again, which lists each once more


def reason(item: Any) -> str:
    """The server's words about a run or a task that failed, in brackets."""
    return f" ({' '.join(item.error.message.split())})" if item.error and item.error.message else ""
