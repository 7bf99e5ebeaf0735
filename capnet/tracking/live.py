"""Live values: the callback that `stages.run` gives to a stage, and the daemon thread that sends to a server.

Nothing waits for the server, and what it misses is not kept: `capnet register` completes the run from the stages'
files. MLflow's own asynchronous logging would keep the process from ending while the server is down.
"""

from __future__ import annotations

import math
import os
import resource
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING

from capnet.config import Params, settings_hash
from capnet.contracts import read_classes, sha256_file
from capnet.runtime import resolved
from capnet.tracking.provenance import fingerprints
from capnet.tracking.store import experiment_id, quiet_environment, tracking_uri

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

Log = Callable[[Mapping[str, float], int], None]
PATIENCE = 2.0  # seconds that a finished stage waits for its last values to be sent
ROOM = 10_000  # calls of log, and metrics, that are kept for a server that does not answer; the newest stay
MODEL_TAG = "model_sha256"  # of a run: the sha256 of the model.safetensors that it trained


def outside_run() -> str:
    """Id of a run that was opened outside (Kubeflow's MLflow plugin sets MLFLOW_RUN_ID); whoever opened it ends it."""
    return os.environ.get("MLFLOW_RUN_ID", "")


@contextmanager
def tracked(stage: str, params: Params, inputs: Mapping[str, Path], outputs: Mapping[str, Path]) -> Iterator[Log]:
    """Send a stage's values to the MLflow server while it works; a database file gets them from `capnet register`.

    A stage that reads a model goes on in the run that trained it. The run is finished, failed or killed with the stage.

    Args:
        stage: Name of the stage.
        params: All settings; section register names the store.
        inputs: The stage's inputs: ``model``, or ``split`` and ``graph``, whose hashes are tags of the run.
        outputs: The stage's outputs; the run's tag MODEL_TAG is the hash of ``model``.

    Returns:
        ``log(values, step)``, which neither raises nor waits, whatever the server does.
    """
    if not tracking_uri(params.register_).startswith(("http://", "https://")):
        yield lambda values, step: None
        return
    with quiet_environment():
        sender = _Sender(stage, params, inputs)
        sender.start()
        try:
            yield sender.log
        except BaseException as error:
            sender.finish("FAILED" if isinstance(error, Exception) else "KILLED", "")
            raise
        sender.finish("FINISHED", _model_hash(outputs))


def _now() -> int:
    return int(time.time() * 1000)


def _model_hash(paths: Mapping[str, Path]) -> str:
    """The sha256 of the trained tensors, "" where there is no model."""
    with suppress(KeyError, OSError):
        return sha256_file(paths["model"] / "model.safetensors")
    return ""


class _Sender(Thread):
    """One run's connection. The process may end at any time: it is a daemon."""

    def __init__(self, stage: str, params: Params, inputs: Mapping[str, Path]) -> None:
        super().__init__(name="capnet-tracking", daemon=True)
        self._stage, self._params, self._inputs = stage, params, inputs
        self._uri, self._outside_run = tracking_uri(params.register_), outside_run()
        self._calls: deque[tuple[dict[str, float], int, int]] = deque(maxlen=ROOM)  # values, ms since 1970, step
        self._news, self._end = Event(), ("", "")  # status of the run, hash of the model
        self._begun, self._clock, self._cpu = _now(), time.monotonic(), time.process_time()
        self._news.set()  # the run begins before the first value

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Hand over values of one step, with the load of this process."""
        clock, cpu = time.monotonic(), time.process_time()
        load = {
            "system/cpu_utilization_percentage": 100 * (cpu - self._cpu) / max(1e-3, clock - self._clock),
            "system/process_memory_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }
        self._clock, self._cpu = clock, cpu
        finite = {name: float(value) for name, value in {**values, **load}.items() if math.isfinite(value)}
        self._calls.append((finite, _now(), step))
        self._news.set()

    def finish(self, status: str, model_hash: str) -> None:
        """Hand over the end of the run, and give a server that is well the time to hear of it."""
        self._end = (status, model_hash)
        self._news.set()
        self.join(PATIENCE)

    def run(self) -> None:
        with suppress(Exception):  # of a store that is not there, or an MLflow that is not installed
            self._send()

    def _send(self) -> None:
        from mlflow.entities import Metric, RunTag
        from mlflow.tracking import MlflowClient

        client, run_id, metrics = MlflowClient(self._uri), "", list[Metric]()
        while True:
            self._news.wait()
            self._news.clear()
            status, model_hash = self._end  # read before the calls, so that the last ones are among them
            while self._calls:
                values, at, step = self._calls.popleft()
                metrics += [Metric(name, value, at, step) for name, value in values.items()]
            metrics = metrics[-ROOM:]
            with suppress(Exception):  # they go with the next call: the same time and step make no second point
                run_id = run_id or self._begin(client)
                if run_id:
                    tags = [RunTag(MODEL_TAG, model_hash)] if model_hash and not self._outside_run else []
                    client.log_batch(run_id, metrics=metrics, tags=tags)
                    metrics = []
                if run_id and status and not self._outside_run:
                    client.set_terminated(run_id, status)
            if status:
                return

    def _begin(self, client: MlflowClient) -> str:
        """The run from outside, the one that trained the model, or a new one; "" where a model's run is not known."""
        if self._outside_run:
            return self._outside_run
        experiment = experiment_id(client, self._params.register_)
        if "model" in self._inputs:
            query = f"tags.{MODEL_TAG} = '{_model_hash(self._inputs)}'"
            runs = client.search_runs([experiment], query, order_by=["attributes.start_time DESC"])
            # the figures of one that is registered stay as they are
            return next((str(run.info.run_id) for run in runs if "content_hash" not in run.data.tags), "")
        tags = self._tags()
        query = f"tags.training = '{tags['training']}' and attributes.status = 'RUNNING'"
        for run in client.search_runs([experiment], query):
            if run.info.start_time == self._begun:  # made by a request whose answer was lost
                return str(run.info.run_id)
            # an earlier process, whose checkpoint this one may go on from, did not live to end its run
            client.set_terminated(run.info.run_id, "KILLED")
        name = f"{self._params.register_.name}-{self._stage}"
        return str(client.create_run(experiment, self._begun, tags, name).info.run_id)

    def _tags(self) -> dict[str, str]:
        """What registration finds the run by; ``training`` is the same for all processes that share a checkpoint, and
        for no others.
        """
        tags = fingerprints(self._params.subset(("backbone", "tte", "train")), self._inputs["split"])
        graph = sha256_file(self._inputs["graph"] / "graph.safetensors")
        buckets = read_classes(self._inputs["split"] / "classes.json").buckets
        runtime = resolved(self._params.runtime).with_effect()
        training = settings_hash(tags, runtime, {"graph": graph, "buckets": buckets})
        return {**tags, "training": training, "mlflow.source.name": "capnet"}
