"""Tracking while a stage works: seen on a good server, harmless with a bad one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from unit.registry.unreliable import Unreliable
from unit.stores import Make
from unit.tracking import tracked_runs
from unit.tracking.tracked_runs import (
    EPOCHS,
    FAULT,
    SLACK,
    check_complete,
    inputs_of,
    register,
    runs_of,
    settings_of,
    train,
    wait_for,
    wait_for_points,
)

from capnet.registry.candidate import read_candidate
from capnet.registry.figures import figures
from capnet.tracking.live import MODEL_TAG, PATIENCE, tracked

proxy = tracked_runs.proxy


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
