"""The run of one pipeline execution: the one that was given or that training began, and what completes it."""

from __future__ import annotations

import configparser
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from capnet.config import Register
from capnet.contracts import sha256_file
from capnet.contracts.files import host, is_alive
from capnet.redaction import redact
from capnet.registry.candidate import Candidate
from capnet.registry.figures import curves
from capnet.tracking.live import MODEL_TAG, outside_run
from capnet.tracking.provenance import fingerprints
from capnet.tracking.store import insist

if TYPE_CHECKING:
    from mlflow.entities import Metric, Run
    from mlflow.tracking import MlflowClient

LONGEST_DIGEST = 36  # that MLflow keeps of a data set
PROCESS = "registered_by"  # tag of a run: machine and id of the process that registers
RUNNING = "attributes.status = 'RUNNING'"


def run_tags(candidate: Candidate) -> dict[str, str]:
    """What the run was made from and which model it trained: a later registration finds it by these tags."""
    model = sha256_file(candidate.model / "model.safetensors")
    return fingerprints(candidate.config, candidate.split) | {MODEL_TAG: model}


def begun_run(client: MlflowClient, settings: Register, candidate: Candidate) -> str:
    """The run that waits for the results of this model.

    It is the run from outside, else the newest with the candidate's tags. If the server missed the end of the
    training, the run has no tag of the model; then its curve must be the one in the model's history.

    Args:
        client: of the store.
        settings: the section ``register``, which names the experiment.
        candidate: with the model and its history.

    Returns:
        The run's id, "" where there is none.
    """
    if outside_run():
        return outside_run()
    tags = run_tags(candidate)
    model = tags.pop(MODEL_TAG)
    query = " and ".join(f"tags.{name} = '{value}'" for name, value in tags.items())
    runs = [run for run in _runs(client, settings, query) if _is_open(run, candidate.content_hash)]
    # first those that no registration has completed, and of them those that are surely of this model
    for run in sorted(runs, key=lambda run: ("content_hash" in run.data.tags, MODEL_TAG not in run.data.tags)):
        tag = run.data.tags.get(MODEL_TAG)
        if tag == model or (tag is None and _is_curve_of(client, run, candidate)):
            return str(run.info.run_id)
    return ""


def _is_open(run: Run, content_hash: str) -> bool:
    """False for a run with other results, or that another registration completes just now."""
    registered = run.data.tags.get("content_hash")
    return registered is None or (registered == content_hash and run.info.status != "RUNNING")


def _is_curve_of(client: MlflowClient, run: Run, candidate: Candidate) -> bool:
    """True where the run has points and every one is in the history, which has six decimals."""
    history = {(name, step): value for name, value, step in curves(candidate)}
    points = list(_points(client, run, {name for name, _ in history}))
    expected = [history.get((point.key, point.step), math.nan) for point in points]
    return bool(points) and all(
        math.isclose(point.value, value, rel_tol=1e-6, abs_tol=1e-6)
        for point, value in zip(points, expected, strict=True)
    )


def _points(client: MlflowClient, run: Run, names: Iterable[str]) -> Iterator[Metric]:
    for name in names:
        if name in run.data.metrics:
            yield from client.get_metric_history(run.info.run_id, name)


def process_tag() -> dict[str, str]:
    """The tag by which a later registration on this machine sees that this one died. A run from outside gets
    none: whoever opened it ends it.
    """
    return {} if outside_run() else {PROCESS: f"{host()}.{os.getpid()}"}


def died_here(client: MlflowClient, settings: Register) -> set[str]:
    """The runs of registrations on this machine that died without marking their run, whatever they registered.

    Args:
        client: of the store.
        settings: the section ``register``, which names the experiment.

    Returns:
        Their ids.
    """
    form = re.compile(rf"{re.escape(host())}\.(\d+)")
    runs = _runs(client, settings, f"tags.{PROCESS} LIKE '{host()}.%' and {RUNNING}")
    processes = {str(run.info.run_id): form.fullmatch(run.data.tags[PROCESS]) for run in runs}
    return {run_id for run_id, match in processes.items() if match and not is_alive(int(match[1]))}


def registering(client: MlflowClient, settings: Register, content_hash: str) -> set[str]:
    """The runs of registrations of a content that are at work, or died without marking their run.

    Args:
        client: of the store.
        settings: the section ``register``, which names the experiment.
        content_hash: of what they register.

    Returns:
        Their ids.
    """
    runs = _runs(client, settings, f"tags.content_hash = '{content_hash}' and {RUNNING}")
    return {str(run.info.run_id) for run in runs if PROCESS in run.data.tags}


def _runs(client: MlflowClient, settings: Register, query: str) -> list[Run]:
    """The runs of the experiment that a query finds, the newest first; none where there is no such experiment."""
    experiment = client.get_experiment_by_name(settings.experiment)
    if experiment is None:
        return []
    return client.search_runs([experiment.experiment_id], query, order_by=["attributes.start_time DESC"])


def end_killed(client: MlflowClient, run_ids: Iterable[str]) -> None:
    """Mark runs of registrations that died as killed, and what they began to log as failed.

    Args:
        client: of the store.
        run_ids: of the runs; one that still lives ends its run itself, and its model, whatever they are marked as.
    """
    for run_id in run_ids:
        with suppress(Exception):  # of another account, or deleted meanwhile
            fail_pending_models(client, run_id)
            client.set_terminated(run_id, "KILLED")


def fail_pending_models(client: MlflowClient, run_id: str) -> None:
    """Mark what a run began to log as failed.

    Args:
        client: of the store.
        run_id: of the run.
    """
    experiment = client.get_run(run_id).info.experiment_id
    for model in client.search_logged_models([experiment], f"source_run_id = '{run_id}'"):
        if model.status == "PENDING":
            client.finalize_logged_model(model.model_id, "FAILED")


def put_tags(client: MlflowClient, run_id: str, tags: Mapping[str, str]) -> None:
    """Set tags of a run in one call.

    Args:
        client: of the store.
        run_id: of the run.
        tags: that are added, or take the place of others.
    """
    from mlflow.entities import RunTag

    client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])


def logged_points(client: MlflowClient, run_id: str, names: Iterable[str]) -> dict[tuple[str, int], int]:
    """What a run has of some metrics.

    Args:
        client: of the store.
        run_id: of the run.
        names: of the metrics.

    Returns:
        Time in milliseconds by (metric, step).
    """
    points = _points(client, client.get_run(run_id), names)
    return {(point.key, point.step): point.timestamp for point in points}


def log_data_set(client: MlflowClient, run_id: str, candidate: Candidate, data_md5: str, location: str) -> None:
    """The data set as MLflow lists it: DVC's md5 as digest, the location at the DVC remote as source, counts as
    profile.

    Args:
        client: of the store.
        run_id: of the run.
        candidate: whose data it is.
        data_md5: of the data's version in DVC; "" where it is not under DVC, then the digest is that of the split.
        location: at the DVC remote, from ``dvc_location``; "" where there is none.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    digest = data_md5 or sha256_file(candidate.split / "split.parquet")
    counts = {
        "classes": len(candidate.classes),
        "train_positives": int(candidate.classes.train_counts.sum()),
        "test_rows": candidate.metrics.get("test_rows", 0),
    }
    kind = "s3" if location.startswith("s3://") else "local"
    data_set = Dataset(
        "data", digest[:LONGEST_DIGEST], kind, json.dumps({"uri": location or "data"}), profile=json.dumps(counts)
    )
    insist(client.log_inputs, run_id, [DatasetInput(data_set, [InputTag("mlflow.data.context", "training")])])


def dvc_location(config: Path, md5: str) -> str:
    """Where the default DVC remote keeps a version of the data.

    Args:
        config: .dvc/config.
        md5: of the version; "" where the data is not under DVC.

    Returns:
        REMOTE/files/md5/ab/cdef, without passwords; "" without a version or a default remote.
    """
    if not md5:
        return ""
    parser = configparser.ConfigParser(interpolation=None)  # an address may have a %
    try:
        parser.read_string("\n".join(line.strip() for line in config.read_text().splitlines()))
        remote = parser["core"]["remote"]
        url = parser[f"'remote \"{remote}\"'"]["url"]
    except (OSError, KeyError, configparser.Error):
        return ""
    return f"{redact(url).rstrip('/')}/files/md5/{md5[:2]}/{md5[2:]}"
