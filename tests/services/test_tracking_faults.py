"""A real MLflow server whose disk is full, that stands still, that dies, or that was never there: training loses no
time, and registration makes the run complete, once.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from services.mlflow_server import start
from services.s3_server import free_ports
from services.small_server import SmallServer
from unit.conftest import _make as make_outputs

from capnet.commands.doctor.data import DEADLINE
from capnet.commands.doctor.findings import examine
from capnet.commands.doctor.machine import machine_checks
from capnet.config import Params
from capnet.registry.candidate import read_candidate
from capnet.registry.register import register_version
from capnet.tracking.faults import StoreError
from capnet.tracking.live import PATIENCE, tracked

EPOCHS, FAULT = 20, 8
SLACK = 1.5  # seconds that a busy machine takes for what takes none
STALL = 30.0  # seconds


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallServer]:
    server = SmallServer(tmp_path_factory.mktemp("small"))
    try:
        server.start()
        yield server
    finally:
        server.stop()


@dataclass
class Work:
    """A made model, and settings with which it could have been trained."""

    paths: dict[str, Path]
    settings: Params

    def train(self, fault: Callable[[], object], seconds: float = 2.0) -> float:
        """What stages.run does around the train step; ``fault`` happens before epoch FAULT, and the rest takes
        ``seconds``.

        Returns the seconds that tracking took, the fault's own left out.
        """
        begin, idle = time.monotonic(), 0.0
        inputs = {"split": self.paths["split"], "graph": self.paths["model"]}
        with tracked("train", self.settings, inputs, {"model": self.paths["model"]}) as log:
            for epoch in range(1, EPOCHS + 1):
                before = time.monotonic()
                if epoch == FAULT:
                    fault()
                elif epoch > FAULT:
                    time.sleep(seconds / (EPOCHS - FAULT))
                idle += time.monotonic() - before
                log({"train/loss": 1 / epoch} | ({"val/mAP": 0.1 * epoch} if epoch > 1 else {}), epoch)
        return time.monotonic() - begin - idle

    def register(self) -> str:
        version = register_version(
            self.settings.register_, read_candidate(**self.paths), self.paths["evaluation"] / "report.html"
        )
        return str(version.version)


@pytest.fixture
def work(small: SmallServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Work:
    """In a working directory, with an experiment and a registered model of the test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", small.address)
    monkeypatch.setenv("CAPNET_STATE", str(tmp_path / "state"))
    paths = make_outputs(tmp_path / "outputs", epochs=EPOCHS)
    config = json.loads((paths["model"] / "config.json").read_text())
    name = "".join(letter if letter.isalnum() else "_" for letter in request.node.name)[-60:]
    sections = {section: config[section] for section in ("backbone", "tte", "train")}
    return Work(paths, Params.model_validate({**sections, "register": {"name": name, "experiment": name}}))


def runs_of(address: str, work: Work) -> list[Run]:
    client = MlflowClient(address)
    experiment = client.get_experiment_by_name(work.settings.register_.experiment)
    return client.search_runs([experiment.experiment_id]) if experiment else []


def wait_for_points(address: str, work: Work) -> None:
    """Until the run has a point."""
    end = time.monotonic() + 60
    while not any("train/loss" in run.data.metrics for run in runs_of(address, work)):
        assert time.monotonic() < end, "no value came through"
        time.sleep(0.2)


def check_complete_once(address: str, work: Work) -> str:
    """One finished run with every epoch once, and one version of it; returns the run's id."""
    client = MlflowClient(address)
    (run,) = runs_of(address, work)
    assert run.info.status == "FINISHED"
    loss, mAP = (client.get_metric_history(run.info.run_id, name) for name in ("train/loss", "val/mAP"))
    assert sorted((point.step, round(point.value, 5)) for point in loss) == [
        (epoch, round(1 / epoch, 5)) for epoch in range(1, EPOCHS + 1)
    ]
    assert sorted(point.step for point in mAP) == list(range(2, EPOCHS + 1))
    assert run.data.metrics["mAP"] == 0.5
    (version,) = client.search_model_versions(f"name = '{work.settings.register_.name}'")
    assert version.run_id == run.info.run_id
    return str(run.info.run_id)


def test_a_server_that_is_down_from_the_start(small: SmallServer, work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert work.train(lambda: None) < PATIENCE + SLACK
    monkeypatch.setenv("MLFLOW_TRACKING_URI", small.address)
    assert work.register() == work.register() == "1"
    check_complete_once(small.address, work)


@pytest.mark.parametrize("kind", ["full", "stalled", "killed"])
def test_training_loses_no_time_and_registration_completes_its_run_once(
    small: SmallServer, work: Work, kind: str
) -> None:
    faults: dict[str, Callable[[], object]] = {
        "full": small.fill,
        "stalled": lambda: small.send(signal.SIGSTOP),
        "killed": lambda: small.send(signal.SIGKILL),
    }
    cures: dict[str, Callable[[], object]] = {
        "full": small.free,
        "stalled": lambda: small.send(signal.SIGCONT),
        "killed": small.serve,
    }

    def fault() -> None:
        wait_for_points(small.address, work)
        (run,) = runs_of(small.address, work)
        begun.append(run.info.run_id)
        faults[kind]()

    begun: list[str] = []
    try:
        seconds = STALL if kind == "stalled" else 2.0
        assert work.train(fault, seconds) < PATIENCE + SLACK, "the stage does not wait for the server"
        with pytest.raises(StoreError, match="could not register the model: "):
            work.register()
        assert kind != "full" or "disk is full" in small.log
    finally:
        cures[kind]()
    assert work.register() == work.register() == "1"
    assert [check_complete_once(small.address, work)] == begun, "the run that training began"


def test_a_full_artifact_store_leaves_no_half_version(small: SmallServer, work: Work) -> None:
    paths, settings = work.paths, work.settings
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
    assert client.search_model_versions(f"name = '{settings.register_.name}'") == []
    experiment = client.get_experiment_by_name(settings.register_.experiment)
    assert experiment is not None
    (failed,) = client.search_runs([experiment.experiment_id])
    assert failed.info.status == "FAILED"
    report.write_text("<p>small</p>")
    version = register_version(settings.register_, candidate, report)
    assert register_version(settings.register_, candidate, report).version == version.version
    assert [str(item.version) for item in client.search_model_versions(f"name = '{settings.register_.name}'")] == [
        str(version.version)
    ]
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_id, run.info.status) == (failed.info.run_id, "FINISHED")


def test_the_doctor_asks_the_artifact_store_of_a_server(
    small: SmallServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def messages(address: str) -> list[str]:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        findings = examine(machine_checks(Params().register_), DEADLINE)
        return [item.problem.what if item.problem else item.message for item in findings if item.about == "mlflow"]

    assert messages(small.address) == [f"{small.address} answers", "its artifact store answers"]
    (port,) = free_ports(1)
    dead = {"MLFLOW_S3_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    server = start(port, f"sqlite:///{tmp_path}/mlflow.db", "s3://bucket", tmp_path / "log", dead)
    try:
        address, problem = messages(f"http://127.0.0.1:{port}")
    finally:
        os.killpg(server.pid, signal.SIGKILL)
    assert address == f"http://127.0.0.1:{port} answers"
    assert problem.startswith("could not list files in the artifact store of the server: ")
