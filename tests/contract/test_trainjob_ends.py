"""Tasks and nodes that end early: cancelled, killed, tried again, left alone; in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from contract import trainjob_task
from contract.trainer_server import JOBS, condition
from contract.trainjob_task import METRICS, NODES, PARAMS, Task, good, steady

from capnet.cluster import trainjob_files as files
from capnet.cluster import trainjob_spec as spec
from capnet.errors import ConfigError

pytestmark = pytest.mark.slow

task = trainjob_task.task


def test_a_cancelled_task_takes_its_trainjob_along(task: Task) -> None:
    task.cluster.play = steady
    process = task.process()
    task.wait_until(
        lambda: bool(task.cluster.made) and task.cluster.looks.get(task.cluster.made[0]["metadata"]["name"], 0) > 1
    )
    assert task.left
    process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=20)[1]
    assert process.returncode == 143
    assert "cancelled error, exit code 143\nthe task was cancelled" in output
    assert task.cluster.removed == [task.cluster.made[0]["metadata"]["name"]]
    assert task.left == []


def test_the_folder_of_a_task_that_was_killed_goes_with_a_later_training(task: Task) -> None:
    """KFP's launcher handles no signal: PID 1 of a cancelled task ends at once, and the kernel kills the rest."""
    nodes = task.folder / "state" / "nodes"
    for name, hours in (("capnet-old", 2), ("capnet-running", 2), ("capnet-elsewhere", 2), ("capnet-fresh", 0)):
        (nodes / name).mkdir(parents=True)
        (nodes / name / "images").mkdir()
        then = time.time() - 3600 * hours
        files.beat(nodes / name)
        if name != "capnet-elsewhere":  # of another namespace, where a task waits for it
            os.utime(nodes / name / "alive", (then, then))
        os.utime(nodes / name, (then, then))
    task.cluster.objects[f"{JOBS}/capnet-running"] = {"metadata": {"name": "capnet-running"}, "spec": {}}
    task.cluster.play = good
    assert task.run() == METRICS
    assert sorted(path.name for path in nodes.iterdir()) == ["capnet-elsewhere", "capnet-fresh", "capnet-running"]


@pytest.mark.parametrize("amounts", [{}, {"cpu": "1.5", "memory": "8192Mi"}], ids=["usual", "not canonical"])
def test_another_try_follows_what_a_killed_one_left(
    task: Task, monkeypatch: pytest.MonkeyPatch, amounts: dict[str, str]
) -> None:
    task.cluster.play = steady
    process = task.process(**amounts)
    task.wait_until(
        lambda: bool(task.cluster.made) and task.cluster.looks.get(task.cluster.made[0]["metadata"]["name"], 0) > 1
    )
    process.kill()
    process.communicate(timeout=20)
    assert len(task.left) == 2
    task.cluster.play = good
    monkeypatch.setenv("CAPNET_POD", "run-train-2")
    monkeypatch.setenv("CAPNET_POD_UID", "5678")
    assert task.run(**amounts) == METRICS
    (job,) = task.cluster.made
    assert job["metadata"]["ownerReferences"] == [
        {"apiVersion": "v1", "kind": "Pod", "name": "run-train-2", "uid": "5678"}
    ]
    assert task.left == []


def test_nodes_learn_that_the_task_was_cancelled_although_it_is_killed_at_once(task: Task) -> None:
    def play(job: dict[str, Any], poll: int) -> Any:
        task.cluster.silence = 10**6 if poll == 2 else 0
        return steady(job, poll)

    task.cluster.play = play
    process = task.process()
    task.wait_until(lambda: task.cluster.silence > 0)
    process.send_signal(signal.SIGTERM)
    (folder,) = (task.folder / "state" / "nodes").iterdir()
    task.wait_until(lambda: files.is_abandoned(folder))
    process.kill()
    process.communicate(timeout=20)
    task.cluster.silence, task.cluster.play = 0, good
    assert task.run() == METRICS
    assert len(task.cluster.made) == 2, "what was told to end is not followed"
    assert task.left == []


@pytest.mark.parametrize("output", ["abandoned", "nothing", "alive"])
def test_a_node_ends_by_itself_once_nobody_waits(tmp_path: Path, repository: Path, output: str) -> None:
    if output == "abandoned":
        files.abandon(tmp_path)
    code = """
import sys, threading, time
from pathlib import Path
from capnet.cluster import trainjob_node as node
node.EVERY, node.PATIENCE = 0.05, 1.0
threading.Thread(target=node.leave_when_nobody_waits, args=(Path(sys.argv[1]),), daemon=True).start()
time.sleep(1.8)
sys.exit(5)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], cwd=repository, stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None:
        if output == "alive":
            files.beat(tmp_path)
        time.sleep(0.05)
    assert process.returncode == (5 if output == "alive" else 0), process.stderr
    assert files.is_abandoned(tmp_path) == (output != "alive"), "processes that are started again end at once"


@pytest.mark.parametrize("change", ["image", "failed", "going"])
def test_what_cannot_be_followed_is_replaced(task: Task, change: str) -> None:
    folder = task.folder / "state" / "nodes" / "old"
    left = spec.train_job(
        spec.job_name(spec.TaskPod.from_environment(), 3),
        folder,
        spec.settings_of(NODES | ({"image": "another"} if change == "image" else {}), PARAMS),
        spec.TaskPod.from_environment(),
        2,
    )
    task.cluster.objects[f"{JOBS}/{left['metadata']['name']}"] = left
    if change == "failed":
        left["status"] = condition("Failed")
        task.cluster.play = lambda job, poll: good(job, poll) if task.cluster.made else (condition("Failed"), [])
    elif change == "going":
        left["metadata"]["deletionTimestamp"] = "now"
    assert task.run() == METRICS
    assert len(task.cluster.made) == 1
    assert task.left == []


@pytest.mark.parametrize("change", ["gone", "going"])
def test_one_that_goes_with_the_pod_that_started_it_is_started_anew(task: Task, change: str) -> None:
    """In the foreground an object is there, with its name, until all that belongs to it is gone."""
    here = spec.TaskPod.from_environment()
    name = spec.job_name(here, 3)
    left = spec.train_job(name, here.state / "nodes" / name, spec.settings_of(NODES, PARAMS), here, 2)
    task.cluster.objects[f"{JOBS}/{name}"] = left

    def play(job: dict[str, Any], poll: int) -> Any:
        if not task.cluster.made and poll == 2:
            if change == "going":
                job["metadata"]["deletionTimestamp"] = "now"
            else:
                del task.cluster.objects[f"{JOBS}/{name}"]
        return good(job, poll) if task.cluster.made else steady(job, poll)

    task.cluster.play = play
    assert task.run() == METRICS
    assert len(task.cluster.made) == 1


def test_outside_of_a_cluster_it_says_what_to_do_instead(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CAPNET_NAMESPACE")
    with pytest.raises(ConfigError, match="--nproc-per-node 2 -m capnet"):
        task.run()
