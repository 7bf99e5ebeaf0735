"""TrainJobs of one namespace through the Kubernetes API, with errors that name what the cluster lacks."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from capnet.cluster.kubernetes_api import ClusterError, Exists, Kubernetes, NotAllowed, NotThere, Refused
from capnet.cluster.trainjob_spec import GROUP, STEP, VERSION
from capnet.cluster.trainjob_state import Pod, TrainJobState, trainjob_state
from capnet.errors import ConfigError

GONE_SECONDS = 20.0  # for a TrainJob and its pods to go
AGAIN = 0.5
TRAINER = "install Kubeflow Trainer 2.2 or newer, with its runtimes (docs/on-kubernetes.md, Several nodes)"
RIGHTS = "give the account the rights: make deploy FOLDER=overlays/nodes (docs/on-kubernetes.md, Several nodes)"

log = logging.getLogger(__name__)


class Gone(ClusterError):
    """Somebody else removed the TrainJob."""


@dataclass(frozen=True)
class TrainJobs:
    """The TrainJobs of ``namespace``."""

    api: Kubernetes
    namespace: str

    @property
    def collection(self) -> str:
        """Path of all of them in the API."""
        return f"/apis/{GROUP}/{VERSION}/namespaces/{self.namespace}/trainjobs"

    def where(self, name: str) -> str:
        return f"TrainJob {name}, namespace {self.namespace}"

    def find(self, name: str) -> dict[str, Any] | None:
        """The TrainJob; None where there is none. Raises ClusterError where the account may not look."""
        try:
            return self.api.get(f"{self.collection}/{name}")
        except NotThere:
            return None
        except NotAllowed as error:
            raise NotAllowed(
                f"this task may not look at TrainJobs: {error.problems[0].what}", self.where(name), RIGHTS
            ) from None

    def create(self, job: Mapping[str, Any]) -> None:
        """Start a TrainJob; what its volumes would lose on an old Kubeflow Trainer is seen at once."""
        name = job["metadata"]["name"]
        where = self.where(name)
        try:
            made = self.api.create(self.collection, job)
        except NotThere:
            raise ClusterError("this cluster has no TrainJobs", where, TRAINER) from None
        except NotAllowed:
            raise NotAllowed("this task may not start TrainJobs", where, RIGHTS) from None
        except Refused as error:
            message = error.problems[0].what
            missing = "TrainingRuntime" in message and "not found" in message
            todo = (
                f"{TRAINER}, or name one that is there: --training-runtime; kubectl get clustertrainingruntimes"
                if missing
                else "correct what is named"
            )
            raise Refused(f"the cluster refuses the TrainJob: {message}", where, todo) from None
        if not made.get("spec", {}).get("runtimePatches"):
            self.remove(name)
            raise ClusterError(
                "this Kubeflow Trainer is older than 2.2: it dropped the volumes of the TrainJob", where, TRAINER
            )

    def adopt(self, name: str, owner: list[dict[str, Any]]) -> None:
        """Let Kubernetes remove a TrainJob with this pod instead of with the one that started it."""
        self.api.merge(f"{self.collection}/{name}", {"metadata": {"ownerReferences": owner}})

    def poll(self, name: str, nodes: int) -> TrainJobState:
        """How it is now; raises Gone where there is no such TrainJob, and ClusterError where the API does not
        answer.
        """
        job = self.find(name)
        if job is None or "deletionTimestamp" in job["metadata"]:
            raise Gone(
                "the TrainJob was removed while it trained",
                self.where(name),
                "start the run again: training goes on at its last checkpoint",
            )
        pods = self.api.get(
            f"/api/v1/namespaces/{self.namespace}/pods", labelSelector=f"jobset.sigs.k8s.io/jobset-name={name}"
        )
        return trainjob_state(job, pods["items"], nodes)

    def lines(self, pod: Pod, **query: str) -> list[str]:
        """Lines of a pod's log; none where it has none yet, or where they may not be read."""
        try:
            return self.api.text(
                f"/api/v1/namespaces/{self.namespace}/pods/{pod.name}/log", container=STEP, **query
            ).splitlines()
        except (ClusterError, UnicodeDecodeError):
            return []

    def no_pods(self, name: str) -> str:
        """Why there are none: a quota, most often."""
        return self.api.last_event(self.namespace, "Job", f"{name}-{STEP}-0") or self.api.last_event(
            self.namespace, "TrainJob", name
        )

    def require_shared(self, claim: str, enough: tuple[str, ...] = ("ReadWriteMany",)) -> None:
        """Raise ConfigError where pods of several nodes cannot mount a claim together; nothing where that may not be
        asked.
        """
        where = f"claim {claim}, namespace {self.namespace}"
        try:
            modes = self.api.get(f"/api/v1/namespaces/{self.namespace}/persistentvolumeclaims/{claim}")["spec"].get(
                "accessModes", []
            )
        except NotThere:
            raise ConfigError(
                f"there is no claim {claim}",
                where,
                "make deploy FOLDER=overlays/nodes, or name another: --state-claim, --data-claim",
            ) from None
        except NotAllowed:
            return
        if not set(enough) & set(modes):
            todo = (
                "make it anew as ReadWriteMany, of a storage class that can (NFS, CephFS, EFS, ...):"
                " docs/on-kubernetes.md, Several nodes"
            )
            raise ConfigError(
                f"several nodes need a volume that is {' or '.join(enough)}, and this is"
                f" {', '.join(modes) or 'of no mode'}",
                where,
                todo,
            )

    def remove(self, name: str, patience: float | None = None) -> bool:
        """Remove a TrainJob, and wait until its pods are gone too; False where that cannot be seen in time. Never
        raises ClusterError.
        """
        deadline = time.monotonic() + (GONE_SECONDS if patience is None else patience)
        is_requested, reason = False, "it is still there"
        while True:
            try:
                if not is_requested:
                    self.api.delete(f"{self.collection}/{name}")
                    is_requested = True
                elif self.find(name) is None:
                    log.info("TrainJob %s is removed", name)
                    return True
            except NotThere:
                return True
            except (NotAllowed, Refused, Exists) as error:
                reason = error.problems[0].what
                break
            except ClusterError as error:
                reason = error.problems[0].what
            if time.monotonic() > deadline:
                break
            time.sleep(AGAIN)
        log.warning(
            "%s: not seen to go (%s); if it stays: kubectl -n %s delete trainjob %s",
            self.where(name),
            reason,
            self.namespace,
            name,
        )
        return False
