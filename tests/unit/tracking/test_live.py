"""Tracking while a stage works: seen on a good server, harmless with a bad one, completed once by registration."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.tracking import MlflowClient
from unit.registry.unreliable import Unreliable, unreliable

from capnet.config import Params
from capnet.registry.candidate import figures, read_candidate
from capnet.registry.register import register_version
from capnet.registry.run import dvc_location
from capnet.tracking.live import MODEL_TAG, PATIENCE, tracked

Make = Callable[..., dict[str, Path]]
EPOCHS, FAULT = 20, 8
SLACK = 1.5  # seconds that a busy machine takes for what takes none


@pytest.fixture
def proxy(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Unreliable]:
    """A real server behind a proxy, which is the tracking server of the test; time-outs are short."""
    with unreliable(server) as between:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", between.address)
        monkeypatch.setenv("CAPNET_STATE", str(tmp_path / "state"))
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        monkeypatch.chdir(tmp_path)
        yield between


def settings_of(paths: dict[str, Path], name: str = "") -> Params:
    """The settings of the made model; an experiment and a registered model of the test's own."""
    config = json.loads((paths["model"] / "config.json").read_text())
    name = name or f"capnet {uuid.uuid4()}"
    sections = {section: config[section] for section in ("backbone", "tte", "train")}
    return Params.model_validate({**sections, "register": {"name": name, "experiment": name}})


def inputs_of(paths: dict[str, Path]) -> dict[str, Path]:
    return {"split": paths["split"], "graph": paths["model"]}


def values(epoch: int) -> dict[str, float]:
    """What the made history.csv says, with all digits."""
    return {"train/loss": 1 / epoch} | ({"val/mAP": 0.1 * epoch} if epoch > 1 else {})


def train(
    paths: dict[str, Path], settings: Params, first: int = 1, at: dict[int, Callable[[], object]] | None = None
) -> float:
    """What stages.run does around the train step; ``at`` happens before an epoch. Seconds that tracking took."""
    begin, idle = time.monotonic(), 0.0
    with tracked("train", settings, inputs_of(paths), {"model": paths["model"]}) as log:
        for epoch in range(first, EPOCHS + 1):
            before = time.monotonic()
            (at or {}).get(epoch, lambda: None)()
            time.sleep(0.02)
            idle += time.monotonic() - before
            log(values(epoch), epoch)
    return time.monotonic() - begin - idle


def register(paths: dict[str, Path], settings: Params, data_md5: str = "") -> ModelVersion:
    return register_version(settings.register_, read_candidate(**paths), paths["evaluation"] / "report.html", data_md5)


def runs_of(address: str, settings: Params) -> list[Run]:
    """Newest first."""
    client = MlflowClient(address)
    experiment = client.get_experiment_by_name(settings.register_.experiment)
    return client.search_runs([experiment.experiment_id]) if experiment else []


def wait_for(condition: Callable[[], object], patience: float = 30.0) -> None:
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.1)


def wait_for_points(address: str, settings: Params) -> None:
    """Until the only run has a point."""
    wait_for(lambda: any("train/loss" in run.data.metrics for run in runs_of(address, settings)))


def check_complete(address: str, run_id: str) -> None:
    """Every epoch once, and the run is finished."""
    client = MlflowClient(address)
    loss, mAP = (client.get_metric_history(run_id, name) for name in ("train/loss", "val/mAP"))
    assert sorted((point.step, round(point.value, 5)) for point in loss) == [
        (epoch, round(1 / epoch, 5)) for epoch in range(1, EPOCHS + 1)
    ]
    assert sorted(point.step for point in mAP) == list(range(2, EPOCHS + 1))
    assert client.get_run(run_id).info.status == "FINISHED"


def test_training_evaluation_and_registration_make_one_complete_run(
    proxy: Unreliable, server: str, make_outputs: Make
) -> None:
    paths = make_outputs(epochs=EPOCHS)
    settings = settings_of(paths)
    train(paths, settings)
    (run,) = runs_of(server, settings)
    check_complete(server, run.info.run_id)
    assert run.info.run_name.endswith("-train")
    candidate = read_candidate(**paths)
    with tracked("evaluate", settings, {"model": paths["model"]}, {}) as log:
        log(candidate.headline, 0)
    assert runs_of(server, settings)[0].data.metrics["mAP"] == 0.5
    version = register(paths, settings, "0123456789abcdef0123456789abcdef.dir")
    (run,) = runs_of(server, settings)
    run_id = run.info.run_id
    assert version.run_id == run_id
    check_complete(server, run_id)
    evaluated = {
        name: value for name, value in run.data.metrics.items() if not name.startswith(("train/", "val/", "system/"))
    }
    assert evaluated == figures(candidate)
    client = MlflowClient(server)
    assert [len(client.get_metric_history(run_id, name)) for name in evaluated] == [1] * len(evaluated)
    assert {"system/process_memory_megabytes", "system/cpu_utilization_percentage"} <= run.data.metrics.keys()
    assert run.data.params["train.loss.name"] == "db_focal"
    assert {"settings_fingerprint", "split_sha256", "content_hash", MODEL_TAG} <= run.data.tags.keys()
    (data,) = run.inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest) == ("data", "0123456789abcdef0123456789abcdef.dir")
    assert register(paths, settings).version == version.version
    assert len(runs_of(server, settings)) == 1


@pytest.mark.parametrize("mode", ["error", "gone", "lost", "stall"])
def test_a_server_that_fails_in_mid_run_costs_nothing_and_registration_completes_the_run(
    proxy: Unreliable, server: str, make_outputs: Make, mode: str
) -> None:
    paths = make_outputs(epochs=EPOCHS)
    settings = settings_of(paths)

    def fail() -> None:
        wait_for_points(server, settings)
        proxy.mode = mode

    assert train(paths, settings, at={FAULT: fail}) < PATIENCE + SLACK, "the stage does not wait for the server"
    proxy.mode = "ok"
    (begun,) = runs_of(server, settings)
    version = register(paths, settings)
    assert version.run_id == begun.info.run_id
    check_complete(server, begun.info.run_id)
    assert register(paths, settings).version == version.version
    check_complete(server, begun.info.run_id)
    assert len(runs_of(server, settings)) == 1


def test_a_server_that_fails_for_a_while_gets_the_points_of_that_while_too(
    proxy: Unreliable, server: str, make_outputs: Make
) -> None:
    paths = make_outputs(epochs=EPOCHS)
    settings = settings_of(paths)

    def fail() -> None:
        wait_for_points(server, settings)
        proxy.mode, proxy.requests = "lost", 0

    def recover() -> None:
        wait_for(lambda: proxy.requests > 1)
        proxy.mode = "ok"

    train(paths, settings, at={FAULT: fail, FAULT + 5: recover})
    (run,) = runs_of(server, settings)
    check_complete(server, run.info.run_id)


def test_a_run_whose_making_was_not_confirmed_is_not_made_again(
    proxy: Unreliable, server: str, make_outputs: Make
) -> None:
    paths = make_outputs(epochs=EPOCHS)
    settings = settings_of(paths)
    proxy.lost_path = "/runs/create"

    def recover() -> None:
        wait_for(lambda: runs_of(server, settings))
        proxy.lost_path = ""

    train(paths, settings, at={FAULT: recover})
    (run,) = runs_of(server, settings)
    check_complete(server, run.info.run_id)


def test_a_server_that_was_never_there_and_a_registration_elsewhere(
    make_outputs: Make, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = os.environ["MLFLOW_TRACKING_URI"]
    paths = make_outputs(epochs=EPOCHS)
    settings = settings_of(paths)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert train(paths, settings) < PATIENCE + SLACK
    monkeypatch.setenv("MLFLOW_TRACKING_URI", good)
    version = register(paths, settings)
    (run,) = runs_of(good, settings)
    assert run.info.run_id == version.run_id
    check_complete(good, version.run_id)


SCRIPT = """import sys, threading, time
from pathlib import Path
from capnet.config import Params
from capnet.tracking.live import tracked
begin = time.monotonic()
with tracked('train', Params(), {}, {}) as log:
    for epoch in range(1000):
        log({'train/loss': 1.0}, epoch)
    print(time.monotonic() - begin)
    time.sleep(float(sys.argv[1]))
    end = time.monotonic()
print(time.monotonic() - end, 'mlflow' in sys.modules, threading.active_count())
"""


def run_script(address: str, idle: float) -> tuple[float, float, float, str]:
    """Seconds of 1000 calls, of the stage's end and of the process' end; the last words of the output."""
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_RUN_ID"}
    environment["MLFLOW_TRACKING_URI"] = address
    command = [sys.executable, "-c", SCRIPT, str(idle)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as done:
        assert done.stdout is not None
        assert done.stderr is not None
        calls = float(done.stdout.readline())
        ended, *state = done.stdout.readline().split()
        begin = time.monotonic()
        errors = done.stderr.read()
        assert done.wait(60) == 0
    assert errors == "", "nothing of MLflow or of its connection reaches the terminal"
    return calls, float(ended), time.monotonic() - begin, " ".join(state)


@pytest.mark.slow  # a process each, with MLflow
@pytest.mark.parametrize("kind", ["refused", "silent"])
def test_a_process_ends_at_once_where_the_server_does_not_answer(tmp_path: Path, kind: str) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        if kind == "silent":
            silent.listen()
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        calls, ended, gone, _ = run_script(address, 5.0)
    assert calls < 0.5
    assert ended < PATIENCE + SLACK
    assert gone < SLACK


def test_a_database_file_needs_no_mlflow_while_a_stage_works(tmp_path: Path) -> None:
    *_, state = run_script(f"sqlite:///{tmp_path / 'mlflow.db'}", 0.0)
    assert state == "False 1"
    assert not (tmp_path / "mlflow.db").exists()


def test_numbers_that_are_none_are_left_out(proxy: Unreliable, server: str, make_outputs: Make) -> None:
    settings = settings_of(paths := make_outputs())
    with tracked("train", settings, inputs_of(paths), {}) as log:
        log({"train/loss": float("nan"), "val/mAP": 0.5}, 1)
    (run,) = runs_of(server, settings)
    assert run.data.metrics.keys() == {
        "val/mAP",
        "system/cpu_utilization_percentage",
        "system/process_memory_megabytes",
    }


@pytest.mark.parametrize(("error", "status"), [(ZeroDivisionError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_a_stage_that_fails_or_is_interrupted_says_so(
    proxy: Unreliable, server: str, make_outputs: Make, error: type[BaseException], status: str
) -> None:
    settings = settings_of(paths := make_outputs())

    def stage() -> None:
        with tracked("train", settings, inputs_of(paths), {}) as log:
            log({"train/loss": 1.0}, 1)
            raise error

    with pytest.raises(error):
        stage()
    assert [run.info.status for run in runs_of(server, settings)] == [status]


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


def test_a_given_run_is_adopted_and_left_open(
    proxy: Unreliable, server: str, make_outputs: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = MlflowClient(server)
    given = client.create_run(client.create_experiment(f"of a pipeline {uuid.uuid4()}")).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", given)
    paths = make_outputs(epochs=EPOCHS)
    settings = settings_of(paths)
    train(paths, settings)
    assert len(client.get_metric_history(given, "train/loss")) == EPOCHS
    assert client.get_run(given).info.status == "RUNNING"
    version = register(paths, settings)
    assert version.run_id == given
    assert client.get_run(given).info.status == "RUNNING"
    assert len(client.get_metric_history(given, "train/loss")) == EPOCHS
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


@pytest.mark.parametrize(
    ("text", "location"),
    [
        (
            "[core]\n    remote = store\n['remote \"store\"']\n    url = s3://bucket/dvc/\n",
            "s3://bucket/dvc/files/md5/01/23.dir",
        ),
        ("[core]\n    analytics = false\n", ""),
        ("[core\n", ""),
    ],
)
def test_the_location_of_the_data_comes_from_dvcs_settings(tmp_path: Path, text: str, location: str) -> None:
    (tmp_path / "config").write_text(text)
    assert dvc_location(tmp_path / "config", "0123.dir") == location
    assert dvc_location(tmp_path / "nothing", "0123.dir") == ""
