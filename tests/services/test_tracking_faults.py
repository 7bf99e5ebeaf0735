"""A real MLflow server whose disk is full, or that stands still: training goes on, and later everything is there,
once.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner
from mlflow.tracking import MlflowClient
from services.small_server import SmallServer
from unit.conftest import _make as make_outputs

from capnet.cli import main
from capnet.config import Params
from capnet.registry.candidate import read_candidate
from capnet.registry.register import register_version
from capnet.tracking.live import PATIENCE, tracked
from capnet.tracking.store import StoreError

EPOCHS, FAULT = 20, 8
CURVES = ("train/loss", "train/learning_rate", "val/mAP", "val/head", "val/medium", "val/tail")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallServer]:
    found = SmallServer(tmp_path_factory.mktemp("small"))
    try:
        found.start()
        yield found
    finally:
        found.stop()


@pytest.fixture
def settings(
    small: SmallServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Params:
    """A user's settings, in a working directory of its own; an experiment for each test."""
    name = request.node.name.removeprefix("test_")[:60]
    (tmp_path / "params.yaml").write_text(f"register:\n  name: capnet\n  experiment: {name}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", small.address)
    monkeypatch.setenv("CAPNET_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return Params.model_validate({"register": {"name": "capnet", "experiment": name}})


def points(address: str, experiment: str) -> list[list[tuple[int, float]]]:
    """Steps and values of every curve of the only run, in the order of the server; empty where there is no run."""
    client = MlflowClient(address)
    found = client.get_experiment_by_name(experiment)
    runs = client.search_runs([found.experiment_id]) if found else []
    assert len(runs) <= 1, "one run for one execution"
    return (
        [
            [(point.step, point.value) for point in client.get_metric_history(runs[0].info.run_id, name)]
            for name in CURVES
        ]
        if runs
        else []
    )


def train(settings: Params, address: str, fault: Callable[[], object]) -> float:
    """What stages.run does around the train step; before epoch FAULT the server has got something, then ``fault``
    happens.

    Returns the seconds that tracking took from the fault on.
    """
    begin, idle = 0.0, 0.0
    with tracked("train", settings, {}, {}) as log:
        for epoch in range(1, EPOCHS + 1):
            if epoch == FAULT:
                end = time.monotonic() + 60
                while time.monotonic() < end and not any(points(address, settings.register_.experiment)):
                    time.sleep(0.3)
                fault()
                begin = time.monotonic()
            log(dict.fromkeys(CURVES, epoch / 100), epoch)
            if epoch >= FAULT:
                time.sleep(0.1)
                idle += 0.1
    return time.monotonic() - begin - idle


def senders_end() -> None:
    """After the stage's end its own sender tries once more; what it leaves is for `capnet sync`."""
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):  # it ended just now
            found += [child] if "capnet.tracking.follow" in child.cmdline() else []
    assert psutil.wait_procs(found, timeout=60)[1] == []


def command(*arguments: str) -> tuple[int, str]:
    """Exit code and all that a command said, with errors as people see them."""
    done = subprocess.run([sys.executable, "-m", "capnet.cli", *arguments], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def sync() -> str:
    result = CliRunner().invoke(main, ["sync"], catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


@pytest.mark.parametrize("kind", ["full", "stalled"])
def test_training_ends_in_time_and_sync_brings_everything_once(small: SmallServer, settings: Params, kind: str) -> None:
    faults: dict[str, Callable[[], object]] = {"full": small.fill, "stalled": lambda: small.send(signal.SIGSTOP)}
    cures: dict[str, Callable[[], object]] = {"full": small.free, "stalled": lambda: small.send(signal.SIGCONT)}
    try:
        cost = train(settings, small.address, faults[kind])
        assert cost < PATIENCE + 3, "the stage does not wait for the server"
        code, said = command("sync")
        assert code != 0, "the fault is real"
        assert "could not send the spooled records: " in said
        assert all(part in said for part in (f"where: {small.address}", "to do: "))
        assert kind != "full" or "disk is full" in small.log
        senders_end()
    finally:
        cures[kind]()
    assert " records to run " in sync()
    expected = [(epoch, epoch / 100) for epoch in range(1, EPOCHS + 1)]
    assert points(small.address, settings.register_.experiment) == [expected] * len(CURVES)
    assert sync() == f"sync: nothing to send to {small.address}\n"
    assert points(small.address, settings.register_.experiment) == [expected] * len(CURVES)


def test_a_full_artifact_store_leaves_no_half_version(small: SmallServer, settings: Params, tmp_path: Path) -> None:
    paths = make_outputs(tmp_path / "outputs")
    candidate, report = read_candidate(**paths), paths["evaluation"] / "report.html"
    report.write_text("<p>large</p>" * 3_000_000)  # larger than the disk
    client = MlflowClient(small.address)
    with pytest.raises(StoreError) as caught:
        register_version(settings.register_, candidate, report)
    (problem,) = caught.value.problems
    assert problem.what.startswith("could not register the model: ")
    assert "artifacts/report.html" in problem.what
    assert problem.where == small.address
    assert problem.todo.startswith(
        "the server answers, but fails: see its log, and whether its disk, its database or its artifact store is full"
    )
    assert client.search_registered_models() == []
    experiment = client.get_experiment_by_name(settings.register_.experiment)
    assert experiment is not None
    assert [run.info.status for run in client.search_runs([experiment.experiment_id])] == ["FAILED"]
    report.write_text("<p>small</p>")
    version = register_version(settings.register_, candidate, report)
    assert register_version(settings.register_, candidate, report).version == version.version
    assert [str(item.version) for item in client.search_model_versions("name = 'capnet'")] == [str(version.version)]
    assert {run.info.status for run in client.search_runs([experiment.experiment_id])} == {"FAILED", "FINISHED"}
