"""Runs that tracking leaves incomplete, or alike, are completed once by registration."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
import torch
from mlflow.tracking import MlflowClient
from unit.registry.unreliable import Unreliable
from unit.stores import Make
from unit.tracking import tracked_runs
from unit.tracking.tracked_runs import (
    EPOCHS,
    FAULT,
    check_complete,
    inputs_of,
    register,
    runs_of,
    settings_of,
    train,
    values,
    wait_for_points,
)

from capnet.config import Runtime
from capnet.contracts import read_classes, write_classes
from capnet.registry.run import dvc_location
from capnet.tracking.live import _Sender, tracked

proxy = tracked_runs.proxy


def test_training_that_goes_on_after_a_kill_is_one_complete_run_and_one_that_says_killed(
    proxy: Unreliable, server: str, make_outputs: Make
) -> None:
    paths = make_outputs(epochs=EPOCHS)
    settings = settings_of(paths)
    script = f"""import time
from pathlib import Path
from capnet.config import Params
from capnet.tracking.live import tracked
settings = Params.model_validate({settings.model_dump(by_alias=True, mode="json")})
inputs = {{'split': Path({str(paths["split"])!r}), 'graph': Path({str(paths["model"])!r})}}
with tracked('train', settings, inputs, {{}}) as log:
    for epoch in range(1, 6):
        log({{'train/loss': 1 / epoch}}, epoch)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", script]) as process:
        wait_for_points(server, settings)
        process.send_signal(signal.SIGKILL)
    train(paths, settings, first=6)
    version = register(paths, settings)
    runs = {run.info.run_id: run.info.status for run in runs_of(server, settings)}
    check_complete(server, version.run_id)
    del runs[version.run_id]
    assert list(runs.values()) == ["KILLED"]


@pytest.mark.parametrize(
    ("runtime", "buckets", "status"),
    [
        ({"workers": 0}, (100, 20), "KILLED"),
        ({"feature_gigabytes": 5.0}, (100, 20), "KILLED"),
        ({"seed": 1}, (100, 20), "RUNNING"),
        ({}, (1000, 1), "RUNNING"),
    ],
)
def test_the_run_of_a_killed_training_ends_when_one_goes_on_from_its_checkpoint(
    proxy: Unreliable,
    server: str,
    make_outputs: Make,
    runtime: dict[str, float],
    buckets: tuple[int, int],
    status: str,
) -> None:
    paths = make_outputs(epochs=EPOCHS)
    settings = settings_of(paths)
    killed = _Sender("train", settings, inputs_of(paths))
    run_id = killed._begin(MlflowClient(server))
    classes = read_classes(paths["split"] / "classes.json")
    write_classes(paths["split"] / "classes.json", classes.with_counts(classes.train_counts.tolist(), buckets))
    train(paths, settings.model_copy(update={"runtime": Runtime(**runtime)}))
    assert MlflowClient(server).get_run(run_id).info.status == status


def test_the_run_of_a_training_stays_open_where_auto_is_another_precision(
    proxy: Unreliable, server: str, make_outputs: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = make_outputs(epochs=EPOCHS)
    settings = settings_of(paths).model_copy(update={"runtime": Runtime(device="cpu")})
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    run_id = _Sender("train", settings, inputs_of(paths))._begin(MlflowClient(server))
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False})
    train(paths, settings)
    assert MlflowClient(server).get_run(run_id).info.status == "RUNNING"
    train(paths, settings.model_copy(update={"runtime": Runtime(device="cpu", precision="bf16")}))
    assert MlflowClient(server).get_run(run_id).info.status == "KILLED"


def test_a_run_with_the_same_settings_and_another_curve_is_not_taken(
    proxy: Unreliable, server: str, make_outputs: Make
) -> None:
    paths = make_outputs(epochs=EPOCHS)
    settings = settings_of(paths)
    with tracked("train", settings, inputs_of(paths), {}) as log:  # of another seed, and without the tag of a model
        log({"train/loss": 0.123}, 1)
    (other,) = runs_of(server, settings)
    version = register(paths, settings)
    assert version.run_id != other.info.run_id
    check_complete(server, version.run_id)
    assert "content_hash" not in MlflowClient(server).get_run(other.info.run_id).data.tags


def test_training_again_what_is_registered_completes_its_own_run(
    proxy: Unreliable, server: str, make_outputs: Make
) -> None:
    paths = make_outputs(epochs=EPOCHS)
    settings = settings_of(paths)
    train(paths, settings)
    first = register(paths, settings)
    with tracked("train", settings, inputs_of(paths), {}) as log:  # the server misses all but the first epochs
        for epoch in range(1, FAULT):
            log(values(epoch), epoch)
    assert register(paths, settings).version == first.version
    (other,) = [run for run in runs_of(server, settings) if run.info.run_id != first.run_id]
    assert other.data.tags["same_as"] == f"{settings.register_.name} version 1"
    assert other.data.metrics["mAP"] == 0.5
    for run_id in (first.run_id, other.info.run_id):
        check_complete(server, run_id)


def test_a_run_from_outside_is_adopted_and_left_open(
    proxy: Unreliable, server: str, make_outputs: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = MlflowClient(server)
    arguments = client.create_run(client.create_experiment(f"of a pipeline {uuid.uuid4()}")).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", arguments)
    paths = make_outputs(epochs=EPOCHS)
    settings = settings_of(paths)
    train(paths, settings)
    assert len(client.get_metric_history(arguments, "train/loss")) == EPOCHS
    assert client.get_run(arguments).info.status == "RUNNING"
    version = register(paths, settings)
    assert version.run_id == arguments
    assert client.get_run(arguments).info.status == "RUNNING"
    assert len(client.get_metric_history(arguments, "train/loss")) == EPOCHS
    assert runs_of(server, settings) == []


@pytest.mark.parametrize("gone", ["database", "run"])
def test_a_model_is_registered_again_where_the_run_that_trained_it_is_gone(
    database: Path, empty_database: Path, make_outputs: Make, gone: str
) -> None:
    paths = make_outputs(epochs=EPOCHS)
    settings = settings_of(paths)
    first, client = register(paths, settings), MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    if gone == "database":
        shutil.copy(empty_database, database)
    else:
        client.delete_run(first.run_id)
        client.delete_model_version(first.name, first.version)
    again = register(paths, settings)
    assert again.run_id != first.run_id
    check_complete(client.tracking_uri, again.run_id)
    assert client.get_run(again.run_id).data.metrics["mAP"] == 0.5


def test_a_registration_after_one_that_failed_completes_its_run(database: Path, make_outputs: Make) -> None:
    paths = make_outputs(epochs=EPOCHS)
    settings, uri = settings_of(paths), os.environ["MLFLOW_TRACKING_URI"]
    first = register(paths, settings)
    client = MlflowClient(uri)
    client.delete_model_version(first.name, first.version)
    client.set_terminated(first.run_id, "FAILED")
    assert register(paths, settings).run_id == first.run_id
    check_complete(uri, first.run_id)


def test_a_registration_after_one_that_died_ends_its_run(database: Path, make_outputs: Make) -> None:
    paths = make_outputs(epochs=EPOCHS)
    settings, uri = settings_of(paths), os.environ["MLFLOW_TRACKING_URI"]
    first = register(paths, settings)
    client = MlflowClient(uri)
    client.delete_model_version(first.name, first.version)
    client.update_run(first.run_id, "RUNNING")  # what SIGKILL leaves, and the model begun
    client.finalize_logged_model(first.source.rpartition("/")[2], "PENDING")
    others = client.create_run(client.create_experiment("others")).info.run_id
    second = register(paths, settings)
    check_complete(uri, second.run_id)
    assert client.get_run(first.run_id).info.status == "KILLED"
    models = client.search_logged_models([client.get_run(first.run_id).info.experiment_id])
    assert {model.source_run_id: str(model.status) for model in models} == {
        first.run_id: "FAILED",
        second.run_id: "READY",
    }
    assert client.get_run(others).info.status == "RUNNING"


def test_a_model_whose_making_was_not_confirmed_does_not_stay_pending(
    database: Path, make_outputs: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow's client asks again where the server died before it answered."""
    make = MlflowClient.create_logged_model
    monkeypatch.setattr(
        MlflowClient, "create_logged_model", lambda *args, **more: [make(*args, **more) for _ in "12"][1]
    )
    paths = make_outputs(epochs=EPOCHS)
    version = register(paths, settings_of(paths))
    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    models = client.search_logged_models([client.get_run(version.run_id).info.experiment_id])
    assert sorted(str(model.status) for model in models) == ["FAILED", "READY"]
    check_complete(client.tracking_uri, version.run_id)


@pytest.mark.parametrize(
    ("text", "location"),
    [
        (
            "[core]\n    remote = store\n['remote \"store\"']\n    url = s3://bucket/dvc/\n",
            "s3://bucket/dvc/files/md5/01/23.dir",
        ),
        (
            "[core]\n    remote = store\n['remote \"store\"']\n    url = s3://bucket/my%20data\n",
            "s3://bucket/my%20data/files/md5/01/23.dir",
        ),
        ("[core]\n    analytics = false\n", ""),
        ("[core\n", ""),
    ],
)
def test_the_location_of_the_data_comes_from_dvcs_settings(tmp_path: Path, text: str, location: str) -> None:
    (tmp_path / "config").write_text(text)
    assert dvc_location(tmp_path / "config", "0123.dir") == location
    assert dvc_location(tmp_path / "nothing", "0123.dir") == ""
