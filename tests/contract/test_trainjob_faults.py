"""What can go wrong with a TrainJob is named with what to do, and nothing of it is left."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from contract import trainjob_task
from contract.trainer_server import SPACE, Trainer, condition, pod
from contract.trainjob_task import FULL, IMAGE, METRICS, RUNNING, Task, good, steady

from capnet.cluster import trainjob_files as files
from capnet.cluster import trainjob_spec as spec
from capnet.cluster import trainjob_wait as follow
from capnet.cluster import trainjobs as jobs
from capnet.cluster.kubernetes_api import ClusterError
from capnet.errors import CapnetError, ConfigError, ContractError, DataError

pytestmark = pytest.mark.slow

task = trainjob_task.task


def broken(
    write: CapnetError | None = None, complete: bool = False, reason: str = "", **last: Any
) -> Callable[[dict[str, Any], int], Any]:
    """Node 1 breaks first; ``write`` is the error that training wrote down."""

    def play(job: dict[str, Any], poll: int) -> Any:
        name = job["metadata"]["name"]
        if poll < 2:
            return steady(job, poll)
        if write:
            files.write_error(Path(job["spec"]["trainer"]["command"][-1]), 0, write)
        ends = [
            {"terminated": {"exitCode": 1, "reason": "Error", "finishedAt": "2026-01-01T00:00:09Z"}},
            {"terminated": {"finishedAt": "2026-01-01T00:00:05Z", **last}},
        ]
        pods = [pod(name, node, "Failed", **end) for node, end in enumerate(ends)]
        return condition(
            "Complete" if complete else "Failed",
            reason or "JobSetFailed",
            "jobset failed due to one or more job failures",
        ), pods

    return play


def waits(**changes: Any) -> Callable[[dict[str, Any], int], Any]:
    return lambda job, poll: (
        {},
        [pod(job["metadata"]["name"], 0, "Running", **RUNNING), pod(job["metadata"]["name"], 1, "Pending", **changes)],
    )


def unroled(cluster: Trainer) -> None:
    cluster.remove(SPACE, "roles", "capnet-nodes")


def quota(cluster: Trainer) -> None:
    cluster.play = lambda job, poll: ({}, [])
    involved = {"kind": "Job", "name": f"{spec.job_name(spec.TaskPod.from_environment(), 3)}-node-0"}
    cluster.events.append(
        {
            "involvedObject": involved,
            "message": 'Error creating: pods is forbidden: exceeded quota: gpus, requested: "8"',
            "lastTimestamp": "2026",
        }
    )


PULL = {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}}


@pytest.mark.parametrize(
    ("damage", "changes", "kind", "messages", "made"),
    [
        (
            lambda c: setattr(c, "installed", False),
            {},
            ClusterError,
            ["this cluster has no TrainJobs", "install Kubeflow Trainer"],
            False,
        ),
        (unroled, {}, ClusterError, ["this task may not look at TrainJobs", "FOLDER=overlays/nodes"], False),
        (
            lambda c: None,
            {"runtime": "torch-mine"},
            ClusterError,
            ['"torch-mine" not found', "--training-runtime"],
            False,
        ),
        (lambda c: setattr(c, "old", True), {}, ClusterError, ["older than 2.2"], True),
        (
            lambda c: c.find(SPACE, "persistentvolumeclaims", "capnet-state")["spec"].update(
                accessModes=["ReadWriteOnce"]
            ),
            {},
            ConfigError,
            ["ReadWriteMany, and this is ReadWriteOnce"],
            False,
        ),
        (
            lambda c: c.remove(SPACE, "persistentvolumeclaims", "capnet-data"),
            {"data_claim": "capnet-data"},
            ConfigError,
            ["there is no claim capnet-data"],
            False,
        ),
        (
            lambda c: None,
            {"nodes": 33, "processes_per_node": 2},
            ConfigError,
            ["66 processes (33 nodes with 2 each) for batches of 64"],
            False,
        ),
        (lambda c: None, {"tolerations": [{"kee": "gpu"}]}, CapnetError, ["tolerations[0].kee"], False),
        (
            lambda c: setattr(
                c,
                "play",
                broken(DataError("the loss stopped being a number", "pictures 7", "look at them"), exitCode=1),
            ),
            {},
            DataError,
            ["the loss stopped being a number", "pictures 7; TrainJob", "-node-0-1", "look at them"],
            True,
        ),
        (
            lambda c: setattr(c, "play", broken(exitCode=1, reason="JobSetFailed")),
            {},
            CapnetError,
            ["node 1 of 2 failed", "exit code 1", "pod capnet-"],
            True,
        ),
        (
            lambda c: setattr(c, "play", broken(exitCode=137)),
            {},
            ClusterError,
            ["node 1 of 2 failed", "raise --memory"],
            True,
        ),
        (
            lambda c: setattr(c, "play", lambda job, poll: (condition("Failed", "DeadlineExceeded"), [])),
            {},
            ClusterError,
            ["DeadlineExceeded", "--train-hours"],
            True,
        ),
        (
            lambda c: setattr(c, "play", waits(conditions=FULL)),
            {"start_minutes": 0.002},
            ClusterError,
            ["1 of 2 nodes have not started", "Insufficient nvidia.com/gpu", "--start-minutes"],
            True,
        ),
        (
            lambda c: setattr(c, "play", waits(**PULL)),
            {},
            ClusterError,
            ["node 1 cannot get its image", "Back-off pulling image", IMAGE],
            True,
        ),
        (
            quota,
            {"start_minutes": 0.002},
            ClusterError,
            ["2 of 2 nodes have not started", "exceeded quota: gpus"],
            True,
        ),
        (
            lambda c: setattr(c, "play", lambda job, poll: (condition("Complete"), [])),
            {},
            ContractError,
            ["their model is not on the state volume", "ReadWriteMany"],
            True,
        ),
    ],
)
def test_what_goes_wrong_is_named_and_nothing_is_left(
    task: Task,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[Trainer], Any],
    changes: dict[str, Any],
    kind: type[CapnetError],
    messages: list[str],
    made: bool,
) -> None:
    monkeypatch.setattr(follow, "PULL_PATIENCE", 0.1)
    monkeypatch.setattr(files, "SECONDS", 0.0)
    caplog.set_level(logging.INFO, "capnet")
    damage(task.cluster)
    with pytest.raises(kind) as caught:
        task.run(**changes)
    error = caught.value
    for words in messages:
        assert words in str(error)
    assert all(problem.where and problem.todo for problem in error.problems)
    assert len(task.cluster.made) == made
    assert task.left == []
    assert ("is removed" in caplog.text) == made
    assert not (task.folder / "out").exists()


def test_a_failed_pod_is_quoted(task: Task, caplog: pytest.LogCaptureFixture) -> None:
    task.cluster.play, task.cluster.logs[1] = broken(exitCode=1, reason="Error"), "Traceback\nRuntimeError: NCCL"
    with pytest.raises(CapnetError, match="node 1 of 2 failed: Error, exit code 1"):
        task.run()
    assert "node 1: RuntimeError: NCCL" in [record.getMessage() for record in caplog.records]


# kubernetes/kubernetes, issue 121635: while a server reads its roles after a restart, it refuses everybody
NO_ROLES_YET = ((403, "trainjobs.trainer.kubeflow.org is forbidden: User cannot get resource"),)


@pytest.mark.parametrize("away", [Trainer.away, NO_ROLES_YET], ids=["silent", "no roles yet"])
def test_an_api_that_is_away_for_a_while_stops_nothing(
    task: Task, caplog: pytest.LogCaptureFixture, away: tuple[tuple[int, Any], ...]
) -> None:
    caplog.set_level(logging.INFO, "capnet")
    task.cluster.away = away

    def play(job: dict[str, Any], poll: int) -> Any:
        if poll == 2:
            task.cluster.silence = 8
        return good(job, poll)

    task.cluster.play = play
    assert task.run() == METRICS
    assert task.cluster.silence == 0
    messages = [record.getMessage() for record in caplog.records]
    assert sum("goes on asking" in line for line in messages) == 1
    assert "the cluster answers again" in messages
    assert task.left == []


def test_an_api_that_stays_away_is_an_error(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "PATIENCE", 0.1)
    monkeypatch.setattr(jobs, "GONE_SECONDS", 0.1)

    def play(job: dict[str, Any], poll: int) -> Any:
        task.cluster.silence = 10**6
        return steady(job, poll)

    task.cluster.play = play
    with pytest.raises(ClusterError, match=r"503|cannot be reached"):
        task.run()
    assert len(task.left) == 2, (
        "the nodes may still write: their folder stays, and Kubernetes removes the TrainJob with the pod that owns it"
    )


def test_one_that_somebody_removes_is_missed(task: Task) -> None:
    def play(job: dict[str, Any], poll: int) -> Any:
        if poll == 2:
            job["metadata"]["deletionTimestamp"] = "now"
        return steady(job, poll)

    task.cluster.play = play
    with pytest.raises(jobs.Gone, match="removed while it trained"):
        task.run()
    assert task.left == []


def test_a_node_that_ends_late_leaves_no_folder_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = ConfigError("what", "where", "todo")
    files.write_error(tmp_path / "gone", 0, error)
    assert not (tmp_path / "gone").exists()
    folder = tmp_path / "job"
    folder.mkdir()
    files.write_error(folder, 0, error)
    rmtree, tries = shutil.rmtree, []

    def disturbed(path: Path, **options: bool) -> None:
        tries.append(path)
        if len(tries) > 1:
            rmtree(path, **options)

    monkeypatch.setattr("shutil.rmtree", disturbed)
    files.clear(folder)
    assert len(tries) == 2
    assert not folder.exists()
