"""The tasks of a run, out of the list of nodes that the server of Kubeflow Pipelines 2.17.0 gives of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from pipelines.compiling import GOLDEN
from pipelines.run_tasks import bad_end, failed, states, task_names

# as the server listed the nodes of a run whose first task failed, in the order of their random identities
LISTED = """\
capnet-training-tsbns: FAILED
fetch-driver(0): SUCCEEDED
capnet-training-tsbns(0): FAILED
root(0): FAILED
outcome(0): SUCCEEDED
root: FAILED
root-driver: SUCCEEDED
fetch: FAILED
exit-handler-1: FAILED
executor: FAILED
exit-handler-1-driver(0): SUCCEEDED
exit-handler-1(0): FAILED
outcome: SUCCEEDED
outcome-driver: SUCCEEDED
exit-handler-1.onExit: SUCCEEDED
fetch(0): FAILED
executor(0): FAILED
executor(0): SUCCEEDED
fetch-driver: SUCCEEDED
"""


def names(pipeline: str = "training") -> dict[str, str]:
    return task_names((GOLDEN / f"{pipeline}.yaml").read_text())


def nodes(text: str) -> list[Any]:
    pairs = [line.split(": ") for line in text.splitlines()]
    nodes = [
        SimpleNamespace(
            task_id=f"t{place}", display_name=name, state=state, error=None, start_time=None, child_tasks=None
        )
        for place, (name, state) in enumerate(pairs)
    ]
    # what the metadata store knows of a task that runs has no name, and no state
    return [
        *nodes,
        SimpleNamespace(task_id="m", display_name=None, state=None, error=None, start_time=None, child_tasks=None),
    ]


def run(text: str, *history: str) -> Any:
    """A run that ended, with its nodes and the states that it went through."""
    listed = nodes(text)
    listed[0].child_tasks = [SimpleNamespace(pod_name="capnet-training-sf7cf-193170356")]
    details = SimpleNamespace(task_details=listed)
    states_ = [SimpleNamespace(state=state) for state in history]
    return SimpleNamespace(state="FAILED", error=None, state_history=states_, run_details=details)


def shown(text: str) -> list[tuple[str, str]]:
    return [(name, state) for _, name, state in states(nodes(text), names())]


def test_the_tasks_alone_are_reported_and_the_one_that_failed_is_named() -> None:
    assert shown(LISTED) == [("fetch", "FAILED"), ("outcome", "SUCCEEDED")]
    assert failed(nodes(LISTED), names()) == ["fetch"]


def test_a_further_try_is_called_one() -> None:
    assert shown("train: RUNNING\ntrain(0): FAILED\ntrain(1): RUNNING\n") == [
        ("train", "RUNNING"),
        ("train, try 2", "RUNNING"),
    ]


def test_a_try_after_an_eviction_is_told_though_the_server_does_not_say_of_what() -> None:
    listed = "train: RUNNING\ntrain(0): RUNNING\nexecutor: RUNNING\nexecutor(0): FAILED\nexecutor(1): PENDING\n"
    assert shown(listed) == [("train", "RUNNING"), ("a task, try 2", "PENDING")]


def test_a_task_that_could_not_be_prepared_is_named_by_its_driver() -> None:
    listed = "train-driver: FAILED\ntrain-driver(0): FAILED\nroot: FAILED\ntrain: SKIPPED\n"
    assert failed(nodes(listed), names()) == ["the driver of train"]


def test_a_run_whose_account_is_missing_names_its_driver_and_where_argo_says_why() -> None:
    # the server of 2.17.0 gives no reason, and Argo tries the whole run again
    listed = "root-driver: FAILED\nroot-driver(0): FAILED\nroot-driver: FAILED\nroot: SKIPPED\n"
    what, todo = bad_end(run(listed, "PENDING", "FAILED"), names(), "birds")
    assert what == "the run ended as FAILED: the driver of the run"
    assert "kubectl -n birds describe workflow capnet-training-sf7cf | grep Message" in todo


def test_a_run_that_was_cancelled_is_not_called_failed() -> None:
    # the server says so in its history alone: the task, and outcome after it, fail at a deadline that has passed
    listed = "fetch: FAILED\nexecutor(0): FAILED\noutcome: FAILED\n"
    what, todo = bad_end(run(listed, "PENDING", "RUNNING", "CANCELING", "FAILED"), names(), "birds")
    assert what == "the run was cancelled, and with it: fetch; outcome"
    assert "log" not in todo
    assert "checkpoint" in todo


@pytest.mark.parametrize("pipeline", sorted(path.stem for path in GOLDEN.glob("*.yaml")))
def test_every_task_with_a_container_has_its_name(pipeline: str) -> None:
    spec = next(yaml.safe_load_all((GOLDEN / f"{pipeline}.yaml").read_text()))
    executed = [part for part in spec["components"].values() if "executorLabel" in part]
    assert len(names(pipeline)) == len(executed) > 3
    assert {"fetch", "report"} & set(names(pipeline).values())
    assert not {"run", "further-seeds", "exit-handler-1"} & set(names(pipeline).values())


def test_tasks_are_reported_in_the_order_of_their_start() -> None:
    listed = nodes("split: RUNNING\ningest: SUCCEEDED\n")[:2]
    listed[0].start_time, listed[1].start_time = "2026-12-01 03:38:21", "2026-12-01 03:38:01"
    assert [name for _, name, _ in states(listed, names())] == ["ingest", "split"]
