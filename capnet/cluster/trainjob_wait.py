"""Waiting for a TrainJob: every change goes to the log, with the lines of node 0; a fault that will not pass ends the
wait.
"""

from __future__ import annotations

import logging
import re
import time
from dataclasses import dataclass, field
from pathlib import Path

from capnet.cluster.kubernetes_api import ClusterError, NotAllowed
from capnet.cluster.trainjob_files import beat, error_of
from capnet.cluster.trainjob_spec import Nodes
from capnet.cluster.trainjob_state import Pod, TrainJobState
from capnet.cluster.trainjobs import Gone, TrainJobs
from capnet.errors import CapnetError

EVERY = 3.0  # seconds between two polls
PATIENCE = 600.0  # seconds for an API that does not answer; the training itself does not need it
PULL_PATIENCE = 120.0  # for an image that cannot be had
TAIL = 30  # lines of a failed pod

log = logging.getLogger(__name__)


@dataclass
class Follower:
    """Follows one TrainJob; the task shares ``folder`` on the state volume with its pods."""

    jobs: TrainJobs
    name: str
    folder: Path
    nodes: Nodes
    reported: str = ""
    line: str = ""  # time stamp of the last line of node 0
    since: dict[str, float] = field(default_factory=dict)  # of `lasts`: when each thing began to be true

    @property
    def where(self) -> str:
        return self.jobs.where(self.name)

    def wait(self) -> None:
        """Until training is complete; raises the error of the training, or ClusterError for a fault of the cluster."""
        while not self.poll():
            time.sleep(EVERY)

    def poll(self) -> bool:
        """Whether it is complete now."""
        beat(self.folder)
        try:
            now = self.jobs.poll(self.name, self.nodes.nodes)
        except Gone:
            raise
        except ClusterError as error:
            # an API server that has just started refuses everybody until it has read its roles
            if isinstance(error, NotAllowed) and not self.reported:
                raise
            if "silent" not in self.since:
                log.warning("%s; training does not need it, so this goes on asking", error.problems[0].what)
            if self.lasts("silent", True) > PATIENCE:
                raise
            return False
        if self.since.pop("silent", None):
            log.info("the cluster answers again")
        self.report(now)
        self.pass_on(now)
        if now.complete:
            return True
        self.stop_if_hopeless(now)
        return False

    def lasts(self, what: str, true: bool) -> float:
        """Seconds that something has been true without a break."""
        if not true:
            self.since.pop(what, None)
            return 0.0
        return time.monotonic() - self.since.setdefault(what, time.monotonic())

    def report(self, now: TrainJobState) -> None:
        """One line when anything changed."""
        if now.words() != self.reported:
            self.reported = now.words()
            log.info("TrainJob %s: %s", self.name, self.reported)

    def pass_on(self, now: TrainJobState) -> None:
        """New lines of node 0: steps, epochs, warnings."""
        first = next((pod for pod in now.pods if pod.node == 0 and pod.phase != "Pending"), None)
        if first is None:
            return
        # whole seconds, in the node's own time zone
        query = {"sinceTime": re.sub(r"\.\d+", "", self.line)} if self.line else {}
        for line in self.jobs.lines(first, timestamps="true", **query):
            stamp, _, text = line.partition(" ")
            if stamp > self.line:
                self.line = stamp
                log.info("node 0: %s", text)

    def stop_if_hopeless(self, now: TrainJobState) -> None:
        """Raise what the training wrote down, what the cluster says, or that it has waited long enough."""
        broken = now.first_broken
        where = f"{self.where}, pod {broken.name}" if broken else self.where
        if error := error_of(self.folder, where):
            raise error
        if now.failed:
            raise self.failure(now, broken, where)
        no_image = next((pod for pod in now.pods if pod.no_image), None)
        if self.lasts("no image", no_image is not None) > PULL_PATIENCE and no_image is not None:
            todo = (
                "does that image exist, and may the nodes have it? A private registry needs a pull secret on the"
                " service account"
            )
            raise ClusterError(
                f"node {no_image.node} cannot get its image: {no_image.why}",
                f"{self.where}, image {self.nodes.image}",
                todo,
            )
        if self.lasts("waits", not now.started and not now.suspended) > 60 * self.nodes.start_minutes:
            raise self.not_started(now)

    def failure(self, now: TrainJobState, broken: Pod | None, where: str) -> CapnetError:
        """Why the TrainJob failed, with the last lines of the pod that failed first."""
        if broken is None:
            todo = "kubectl describe trainjob, jobset and job of that name; a longer time is --train-hours"
            return ClusterError(f"training on {now.nodes} nodes failed: {now.failed}", where, todo)
        for line in self.jobs.lines(broken, tailLines=str(TAIL)):
            log.error("node %d: %s", broken.node, line)
        what = f"node {broken.node} of {now.nodes} failed: {broken.why or f'exit code {broken.exit_code}'}"
        if "OOMKilled" in broken.why or broken.exit_code == 137:
            return ClusterError(
                what, where, "it needed more memory than it got: raise --memory, or lower train.batch_size"
            )
        if broken.why.startswith(("Evicted", "NodeLost", "Preempt", "Terminat", "Shutdown")):
            return ClusterError(what, where, "its node was taken away; the next try goes on at the last checkpoint")
        return CapnetError(what, where, "its last lines, above, say why")

    def not_started(self, now: TrainJobState) -> ClusterError:
        waiting = [f"node {pod.node}: {pod.why or pod.phase.lower()}" for pod in now.pods if pod.phase == "Pending"]
        what = (
            f"after {self.nodes.start_minutes:g} min {now.nodes - len(now.pods) + len(waiting)} of {now.nodes} nodes"
            " have not started"
        )
        reasons = waiting or [self.jobs.no_pods(self.name) or "no pod was made, and no event says why"]
        todo = (
            "ask for less (--cpu, --memory, --accelerator-count, --nodes), name other nodes (--node-selector,"
            " --tolerations), free a quota, or wait longer: --start-minutes. A volume that cannot be attached must be"
            f" ReadWriteMany: {self.nodes.state_claim}"
        )
        return ClusterError(f"{what}: {'; '.join(reasons)}", self.where, todo)
