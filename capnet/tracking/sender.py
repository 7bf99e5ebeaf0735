"""From the spool to the store: in order, once, whether a stage still writes or ended days ago."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from capnet.tracking.spool import Spool

KEY_TAG = "capnet_run"
SOURCE = {"mlflow.source.name": "capnet"}
BATCH = 1000  # metrics that a store takes in one request
Point = tuple[str, float, int, int]  # name, value, time in ms since 1970, step


class Store(Protocol):
    """What sending takes of a store."""

    @property
    def address(self) -> str:
        """Where it is."""

    def find_run(self, experiment: str, key: str) -> str:
        """Id of the run with KEY_TAG ``key``, "" where there is none."""

    def make_run(self, experiment: str, key: str, name: str, started: int) -> str:
        """Id of a new run, in an experiment that is made where missing; ``started`` in ms since 1970."""

    def log_points(self, run_id: str, points: Sequence[Point]) -> None:
        """Up to BATCH points of curves."""

    def end_run(self, run_id: str, status: str, at: int) -> None:
        """The run's last state: FINISHED, FAILED or KILLED."""


def send(store: Store, spool: Spool, patience: float = 30.0) -> str:
    """Send what is missing and return the run's id; "" where there is nothing and no run, or another sender works.

    A request that was executed although its answer got lost is repeated without effect: the run is found by its key,
    and a metric with the same time, step and value is the same row.
    """
    with spool.lock(patience) as mine:
        if not mine:
            return ""
        note = spool.sent(store.address)
        run_id, sent = str(note["run_id"]), int(note["sent"])
        waiting = spool.records(sent)
        if not waiting:
            return run_id
        about = spool.about()
        if not run_id:
            run_id = _run(store, about, spool)
            spool.mark(store.address, run_id, sent)
        for part in _parts(waiting):
            _send_part(store, run_id, part, own=not about["run_id"])
            sent += len(part)
            spool.mark(store.address, run_id, sent)
        return run_id


def _run(store: Store, about: Mapping[str, Any], spool: Spool) -> str:
    """The run given from outside, else the one that this spool made before, else a new one."""
    if about["run_id"]:
        return str(about["run_id"])
    found = store.find_run(about["experiment"], spool.key)
    return found or store.make_run(about["experiment"], spool.key, about["name"], spool.records(0)[0]["at"])


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


def _send_part(store: Store, run_id: str, part: Sequence[Mapping[str, Any]], own: bool) -> None:
    points = [
        (name, value, item["at"], item["step"])
        for item in part
        if item["kind"] == "metrics"
        for name, value in item["values"].items()
    ]
    if points:
        store.log_points(run_id, points)
    for item in part:
        if item["kind"] == "end" and own:
            store.end_run(run_id, item["status"], item["at"])
