"""The run of one pipeline execution: the one that was given or that training began, and what completes it."""

from __future__ import annotations

import configparser
import json
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from capnet.config import Register, settings_hash
from capnet.contracts import sha256_file
from capnet.registry.candidate import Candidate, figures, flat_params
from capnet.tracking.client_store import ClientStore
from capnet.tracking.sender import send
from capnet.tracking.spool import Spool, spool_of
from capnet.tracking.store import insist

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

LONGEST_DIGEST = 36  # that MLflow keeps of a data set


def given_run() -> str:
    """Id of a run that was opened outside (Kubeflow's MLflow plugin sets MLFLOW_RUN_ID); whoever opened it ends it."""
    return os.environ.get("MLFLOW_RUN_ID", "")


def begun_run(client: MlflowClient, settings: Register, candidate: Candidate) -> str:
    """The given run, else the one that trained this model and waits for its results; "" where there is none. Sends what
    is still spooled.
    """
    if given_run():
        return given_run()
    spool, there = spool_of(sha256_file(candidate.model / "model.safetensors")), ClientStore(client, settings)
    if spool is None or not takes_records(client, spool, there.address):
        return ""
    run_id = send(there, spool)
    done = client.get_run(run_id).data.tags.get("content_hash", candidate.content_hash) if run_id else ""
    return run_id if done == candidate.content_hash else ""


def takes_records(client: MlflowClient, spool: Spool, address: str) -> bool:
    """False where the run of these records was deleted, or was given from outside and is not there.

    A run of our own that a store at the same address does not know, because its database is a new one, is told again
    from the start.
    """
    from mlflow.exceptions import MlflowException

    given = str(spool.about()["run_id"])
    run_id = given or str(spool.sent(address)["run_id"])
    if not run_id:
        return True
    try:
        return bool(client.get_run(run_id).info.lifecycle_stage == "active")
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
    if not given:
        spool.mark(address, "", 0)
    return not given


def complete_twin(client: MlflowClient, settings: Register, candidate: Candidate, found: ModelVersion) -> None:
    """A run that trained what is registered already gets its figures and the number of that version."""
    from mlflow.entities import Metric, Param

    run_id = begun_run(client, settings, candidate)
    if not run_id or run_id == found.run_id or "content_hash" in client.get_run(run_id).data.tags:
        return
    now = int(time.time() * 1000)
    metrics = [Metric(name, value, now, 0) for name, value in figures(candidate).items()]
    params = [Param(name, value) for name, value in flat_params(candidate.config).items()]
    client.log_batch(run_id, metrics=metrics, params=params)
    put_tags(
        client, run_id, {"content_hash": candidate.content_hash, "same_as": f"{found.name} version {found.version}"}
    )


def put_tags(client: MlflowClient, run_id: str, tags: Mapping[str, str]) -> None:
    from mlflow.entities import RunTag

    client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])


def logged_points(client: MlflowClient, run_id: str, names: Iterable[str]) -> dict[tuple[str, int], int]:
    """{(metric, step): time} of what the run has already."""
    there = client.get_run(run_id).data.metrics
    return {
        (name, point.step): point.timestamp
        for name in names
        if name in there
        for point in client.get_metric_history(run_id, name)
    }


def fingerprints(candidate: Candidate) -> dict[str, str]:
    """What the run was made from, as tags."""
    return {
        "settings_fingerprint": settings_hash(candidate.config),
        "split_sha256": sha256_file(candidate.split / "split.parquet"),
    }


def log_data_set(client: MlflowClient, run_id: str, candidate: Candidate, data_md5: str) -> None:
    """The data set as MLflow lists it: DVC's md5 as digest, the place at the DVC remote as source, counts as
    profile.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    place = dvc_location(Path(".dvc/config"), data_md5)
    digest = data_md5 or sha256_file(candidate.split / "split.parquet")
    counts = {
        "classes": len(candidate.classes),
        "train_positives": int(candidate.classes.train_counts.sum()),
        "test_rows": candidate.metrics.get("test_rows", 0),
    }
    kind = "s3" if place.startswith("s3://") else "local"
    data_set = Dataset(
        "data", digest[:LONGEST_DIGEST], kind, json.dumps({"uri": place or "data"}), profile=json.dumps(counts)
    )
    insist(client.log_inputs, run_id, [DatasetInput(data_set, [InputTag("mlflow.data.context", "training")])])


def dvc_location(config: Path, md5: str) -> str:
    """Where the default DVC remote keeps what has this md5, "" without one: REMOTE/files/md5/ab/cdef."""
    parser = configparser.ConfigParser()
    try:
        parser.read_string("\n".join(line.strip() for line in config.read_text().splitlines()))
        remote = parser["core"]["remote"]
        url = parser[f"'remote \"{remote}\"'"]["url"]
    except (OSError, KeyError, configparser.Error):
        return ""
    return f"{url.rstrip('/')}/files/md5/{md5[:2]}/{md5[2:]}" if md5 else url
