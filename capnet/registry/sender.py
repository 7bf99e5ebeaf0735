"""From the spool to the store: in order, once, whether a stage still writes or ended days ago."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capnet.config import Register
from capnet.errors import CapnetError
from capnet.registry.spool import Spool
from capnet.registry.tracking import experiment_id, store, tracking_uri

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

KEY_TAG = "capnet_run"
BATCH = 1000  # metrics that a store takes in one request
LOOK = 0.5  # seconds between two looks at a spool that is written
PAUSE = 5.0  # seconds after a failure


def send(client: MlflowClient, settings: Register, spool: Spool, patience: float = 30.0) -> str:
    """Send what is missing and return the run's id; "" where there is nothing and no run, or another sender works.

    A request that was executed although its answer got lost is repeated without effect: the run is found by its key, and a
    metric with the same time, step and value is the same row.
    """
    uri = tracking_uri(settings)
    with spool.lock(patience) as mine:
        if not mine:
            return ""
        note = spool.sent(uri)
        run_id, sent = str(note["run_id"]), int(note["sent"])
        waiting = spool.records(sent)
        if not waiting:
            return run_id
        if not run_id:
            run_id = _run(client, settings, spool)
            spool.mark(uri, run_id, sent)
        for part in _parts(waiting):
            _send_part(client, run_id, part, own=not spool.about()["run_id"])
            sent += len(part)
            spool.mark(uri, run_id, sent)
        return run_id


def _run(client: MlflowClient, settings: Register, spool: Spool) -> str:
    """The run given from outside, else the one that this spool made before, else a new one."""
    about = spool.about()
    if about["run_id"]:
        return str(about["run_id"])
    experiment = experiment_id(client, settings.model_copy(update={"experiment": about["experiment"]}))
    found = client.search_runs([experiment], f"tags.{KEY_TAG} = '{spool.key}'")
    if found:
        return str(found[0].info.run_id)
    started = spool.records(0)[0]["at"]
    made = client.create_run(experiment, start_time=started, run_name=about["name"], tags={KEY_TAG: spool.key, "mlflow.source.name": "capnet"})
    return str(made.info.run_id)


def _parts(records: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Consecutive records that go into one request: metrics up to BATCH values, an end alone."""
    parts: list[list[dict[str, Any]]] = []
    size = 0
    for record in records:
        weight = BATCH if record["kind"] == "end" else len(record["values"])
        if not parts or size + weight > BATCH:
            parts.append([])
            size = 0
        parts[-1].append(record)
        size += weight
    return parts


def _send_part(client: MlflowClient, run_id: str, part: Sequence[Mapping[str, Any]], own: bool) -> None:
    from mlflow.entities import Metric

    metrics = [Metric(name, value, item["at"], item["step"]) for item in part if item["kind"] == "metrics" for name, value in item["values"].items()]
    if metrics:
        client.log_batch(run_id, metrics=metrics)
    for item in part:
        if item["kind"] == "end" and own:
            client.set_terminated(run_id, item["status"], item["at"])


def follow(folder: Path, writer: int) -> None:
    """Send while the process ``writer`` writes; after its end record try once more and leave the rest to `capnet sync`."""
    spool, settings = Spool(folder), Register()
    settings = settings.model_copy(update={"experiment": spool.about()["experiment"], "tracking_uri": os.environ["MLFLOW_TRACKING_URI"]})
    while True:
        ended = _over(spool, writer)
        try:
            with store(settings, "send") as client:
                while True:
                    ended = ended or _over(spool, writer)
                    send(client, settings, spool)
                    if ended:
                        return
                    time.sleep(LOOK)
        except CapnetError:
            if ended:
                return
            time.sleep(PAUSE)


def _over(spool: Spool, writer: int) -> bool:
    """True where nothing more will be written; a writer that died without a word gets its end written here."""
    records = spool.records(0)
    if records and records[-1]["kind"] == "end":
        return True
    try:
        os.kill(writer, 0)
    except ProcessLookupError:
        spool.add({"kind": "end", "status": "KILLED"})
        return True
    return False


if __name__ == "__main__":
    follow(Path(sys.argv[1]), int(sys.argv[2]))
