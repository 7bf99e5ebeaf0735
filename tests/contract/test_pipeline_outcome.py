"""What task outcome says of runs whose results come from the cache.

The rules are those of kubeflow/pipelines 2.17.0, backend/src/v2: metadata/client.go (UpdateDAGExecutionsState), which
component/launcher_v2.go calls when a task has ended and nothing else does; driver/container.go records a task from the
cache and starts no launcher.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import yaml

from capnet.tasks import say_outcome
from pipelines.compiling import GOLDEN


def recorded(ends: Sequence[str]) -> str:
    """State of a group of tasks that ended in this order."""
    state = "RUNNING"
    for number, end in enumerate(ends, 1):
        if end == "CACHED":
            continue
        if number == len(ends) and "FAILED" not in ends:
            state = "COMPLETE"
        elif "FAILED" in ends[:number]:
            state = "FAILED"
    return state


@pytest.mark.parametrize(
    ("ends", "state"),
    [
        (["COMPLETE", "COMPLETE"], "COMPLETE"),
        (["CACHED", "COMPLETE"], "COMPLETE"),
        (["COMPLETE", "FAILED"], "FAILED"),
        (["COMPLETE", "CACHED"], "RUNNING"),
    ],
)
def test_a_run_that_ended_well_from_the_cache_is_not_called_unfinished(
    ends: list[str], state: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert recorded(ends) == state
    caplog.set_level("INFO")
    say_outcome(recorded(ends), None)
    text = caplog.text
    assert ("from the cache" in text) == (state == "RUNNING")
    assert "not succeeded" not in text


def test_the_last_task_of_a_prediction_may_come_from_the_cache() -> None:
    spec, _ = yaml.safe_load_all((GOLDEN / "prediction.yaml").read_text())
    tasks = spec["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    last = set(tasks) - {name for task in tasks.values() for name in task.get("dependentTasks", ())}
    assert [tasks[name]["cachingOptions"].get("enableCache") for name in last] == [True]
