"""What a TrainJob and its pods say about themselves, in words for a log; no request is made here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from capnet.cluster.trainjob_spec import STEP

INDEX = "batch.kubernetes.io/job-completion-index"
PULLS = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable")
SHOWN = 300  # characters of a reason


@dataclass(frozen=True)
class Pod:
    """One node of the training. ``why`` it is not running, or how it ended; ``exit_code`` of its last end, ``ended``
    when that was.
    """

    name: str
    node: int
    phase: str
    why: str
    exit_code: int | None
    ended: str
    restarts: int

    @property
    def broke(self) -> bool:
        """Its container ended, and not well."""
        return self.phase == "Failed" or bool(self.exit_code)

    @property
    def no_image(self) -> bool:
        return self.phase == "Pending" and self.why.startswith(PULLS)


@dataclass(frozen=True)
class TrainJobState:
    """A TrainJob at one moment."""

    pods: tuple[Pod, ...]
    nodes: int
    complete: bool
    failed: str  # why
    suspended: str  # why

    @property
    def started(self) -> bool:
        return len(self.pods) >= self.nodes and all(pod.phase != "Pending" for pod in self.pods)

    @property
    def first_broken(self) -> Pod | None:
        """The others end because this one did."""
        return min((pod for pod in self.pods if pod.broke), key=lambda pod: (pod.ended or "~", pod.node), default=None)

    def words(self) -> str:
        """One line: how many nodes run, and what the others wait for."""
        if self.complete:
            return "complete"
        if self.failed:
            return f"failed ({self.failed})"
        if self.suspended:
            return f"suspended ({self.suspended})"
        if not self.pods:
            return "created, no pod yet"
        running = sum(pod.phase == "Running" for pod in self.pods)
        others = [
            f"node {pod.node} {pod.phase.lower()}{f': {pod.why}' if pod.why else ''}"
            for pod in self.pods
            if pod.phase != "Running"
        ]
        again = [
            f"node {pod.node} started again after {pod.why}"
            for pod in self.pods
            if pod.phase == "Running" and pod.restarts and pod.why
        ]
        return "; ".join([f"{running} of {self.nodes} nodes running", *others, *again])


def true_conditions(job: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The conditions of a TrainJob that hold, by type."""
    conditions = job.get("status", {}).get("conditions", ())
    return {str(item.get("type")): item for item in conditions if item.get("status") == "True"}


def trainjob_state(job: Mapping[str, Any], pods: Iterable[Mapping[str, Any]], nodes: int) -> TrainJobState:
    """How a TrainJob that should have so many nodes stands, from the API's objects; without pods that are going, and
    without those that failed and have a successor: an evicted pod stays beside the one that Kubernetes makes for it.
    """
    conditions = true_conditions(job)
    present = [pod_of(item) for item in pods if "deletionTimestamp" not in item["metadata"]]
    replaced = {pod.node for pod in present if pod.phase != "Failed"}
    shown = (pod for pod in present if pod.phase != "Failed" or pod.node not in replaced)
    return TrainJobState(
        pods=tuple(sorted(shown, key=lambda pod: (pod.node, pod.name))),
        nodes=nodes,
        complete="Complete" in conditions,
        failed=_reason(conditions.get("Failed")),
        suspended=_reason(conditions.get("Suspended")),
    )


def pod_of(item: Mapping[str, Any]) -> Pod:
    """One pod, from its phase, its conditions and the state of the container that trains."""
    meta, status = item["metadata"], item.get("status", {})
    node = int({**meta.get("annotations", {}), **meta.get("labels", {})}.get(INDEX, 0))
    container: Mapping[str, Any] = next(
        (item for item in status.get("containerStatuses", ()) if item.get("name") == STEP), {}
    )
    now, before = container.get("state", {}), container.get("lastState", {})
    end: Mapping[str, Any] = now.get("terminated") or before.get("terminated") or {}
    unplaced = next(
        (
            condition
            for condition in status.get("conditions", ())
            if condition.get("type") == "PodScheduled" and condition.get("status") == "False"
        ),
        None,
    )
    why, code = _reason(status) or _reason(now.get("waiting")) or _reason(unplaced), end.get("exitCode")
    if not why and code:
        why = f"{end.get('reason') or 'Error'}, exit code {code}"
    return Pod(
        name=meta["name"],
        node=node,
        phase=status.get("phase", "Pending"),
        why=why,
        exit_code=code,
        ended=end.get("finishedAt") or "",
        restarts=int(container.get("restartCount", 0)),
    )


def _reason(item: Mapping[str, Any] | None) -> str:
    if not item or not (item.get("reason") or item.get("message")):
        return ""
    text = ": ".join(str(item[key]) for key in ("reason", "message") if item.get(key))
    text = " ".join(text.split())
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
