"""Train on several nodes, from the task that waits for them: start or find the TrainJob, follow it, take its model,
clear up whatever happened.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from capnet.cluster.kubernetes_api import ClusterError, Kubernetes
from capnet.cluster.trainjob_files import Paths, abandon, clear, is_abandoned, is_complete, put, silence, take
from capnet.cluster.trainjob_spec import SETTINGS, TaskPod, certificates, job_name, settings_of, train_job
from capnet.cluster.trainjob_state import true_conditions
from capnet.cluster.trainjob_wait import Follower
from capnet.cluster.trainjobs import Gone, TrainJobs
from capnet.config import Params
from capnet.errors import CapnetError, counted
from capnet.stages import STAGES

OLD_SECONDS = 90.0  # for the pods of an earlier try to go; they have 30 to end
ABANDONED_SECONDS = 3600.0  # without a TrainJob: a task writes its folder, and starts one right after that

log = logging.getLogger(__name__)


class Cancelled(CapnetError):
    """The task was asked to end (exit code 143)."""

    exit_code = 143
    title = "cancelled"


def train_on_nodes(
    params: Params, inputs: Paths, outputs: Paths, nodes: Mapping[str, Any], own_data: str = ""
) -> dict[str, float]:
    """Stage train as a TrainJob.

    Args:
        params: all settings.
        inputs, outputs: of the stage, by name.
        nodes: options of the TrainJob, as ``settings_of`` reads them.
        own_data: the task's own input of images; those that lie in it are copied for the nodes. "" for none.

    Returns:
        Metrics of stage train.

    Raises:
        CapnetError: what the training raised, as the same kind of error; ClusterError for what the cluster lacks or did
            to it, Cancelled after a SIGTERM. In each case TrainJob and folder are gone then; but KFP's launcher leaves
            a cancelled task about a second, in which the TrainJob goes, and the folder with a later training.
    """
    spec, task_pod = settings_of(nodes, params), TaskPod.from_environment()
    jobs, name = TrainJobs(Kubernetes(), task_pod.namespace), job_name(task_pod, params.runtime.seed)
    jobs.require_shared(spec.state_claim)
    if spec.data_claim:
        jobs.require_shared(spec.data_claim, ("ReadWriteMany", "ReadOnlyMany"))
    folder = task_pod.state / "nodes" / name
    settings = params.subset((*STAGES["train"].sections, "register"))
    job = train_job(name, folder, spec, task_pod, params.runtime.threads)
    with cancellable(folder):
        running = adopted(jobs, job, task_pod, folder)
        try:
            clear_abandoned(jobs, folder)
            while True:
                if not running:
                    own = Path(own_data) if own_data else None
                    put(folder, settings, inputs, own, spec.accelerator_count, certificates())
                    jobs.create(job)
                    processes = counted(spec.processes, "process", "processes")
                    log.info("TrainJob %s of %d nodes, %s each", name, spec.nodes, processes)
                try:
                    Follower(jobs, name, folder, spec).wait()
                    return take(folder, Path(outputs["model"]), spec.state_claim)
                except Gone:
                    # removed with its pods first, it keeps its name until they have ended
                    if not running or not jobs.remove(name, OLD_SECONDS):
                        raise
                    running = False  # Kubernetes removed it together with the pod that had started it
                    log.warning(
                        "TrainJob %s went with the task that had started it: training goes on in a new one", name
                    )
        finally:
            if jobs.remove(name):
                clear(folder)


def clear_abandoned(jobs: TrainJobs, own: Path) -> None:
    """Remove the folders of other TrainJobs that are gone and whose task was killed before it could remove them.
    TrainJobs of another namespace on the same volume cannot be seen here, but their task keeps writing that it waits.
    """
    for folder in own.parent.glob("*"):
        with suppress(ClusterError, FileNotFoundError):  # another task removes it
            is_old = folder != own and silence(folder) > ABANDONED_SECONDS
            if is_old and jobs.find(folder.name) is None:
                clear(folder)
                log.info("the folder of TrainJob %s, which is gone, is removed", folder.name)


def adopted(jobs: TrainJobs, job: Mapping[str, Any], task_pod: TaskPod, folder: Path) -> bool:
    """Look for what an earlier try of this task left; any other TrainJob of that name is removed.

    Returns:
        Whether a TrainJob that does the same as ``job``, which this try would start, is there and goes on.

    Raises:
        ClusterError: an old one does not go.
    """
    name = job["metadata"]["name"]
    left = jobs.find(name)
    if left is None:
        return False
    ended = true_conditions(left).keys() & {"Complete", "Failed"}
    useless = ended and not is_complete(folder)  # one without a model failed, or was abandoned
    if useless or is_abandoned(folder) or "deletionTimestamp" in left["metadata"] or not same(left, job):
        log.info("TrainJob %s of an earlier try is removed", name)
        if not jobs.remove(name, OLD_SECONDS):
            raise ClusterError(
                "a TrainJob of an earlier try does not go",
                jobs.where(name),
                f"kubectl -n {task_pod.namespace} delete trainjob {name}",
            )
        return False
    with suppress(ClusterError):  # then it goes with the earlier pod, and a new one is started
        jobs.adopt(name, task_pod.owner)
    log.info("TrainJob %s of an earlier try is followed", name)
    return True


def same(left: Mapping[str, Any], job: Mapping[str, Any]) -> bool:
    """Whether a TrainJob was started with these settings; the API writes some of them in another way."""
    return left["metadata"].get("annotations", {}).get(SETTINGS) == job["metadata"]["annotations"][SETTINGS]


@contextmanager
def cancellable(folder: Path) -> Iterator[None]:
    """A SIGTERM raises Cancelled, once: a second one does not disturb clearing up. The nodes learn of it first, in case
    this process is killed next.
    """

    def cancel(*_: Any) -> None:
        abandon(folder)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Cancelled(
            "the task was cancelled", "SIGTERM", "start the run again: training goes on at its last checkpoint"
        )

    before = signal.signal(signal.SIGTERM, cancel)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
