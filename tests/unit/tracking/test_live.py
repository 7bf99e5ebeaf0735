"""Tracking while a stage works: complete and once on a good server, harmless with a bad one, and sent later."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from mlflow.entities.model_registry import ModelVersion
from mlflow.tracking import MlflowClient
from unit.registry.unreliable import Unreliable, unreliable

from capnet.cli import main
from capnet.config import Params, Register
from capnet.registry.candidate import figures, read_candidate
from capnet.registry.register import register_version
from capnet.registry.run import dvc_location
from capnet.tracking import live
from capnet.tracking.live import tracked
from capnet.tracking.spool import Spool, open_spool, spools

Make = Callable[..., dict[str, Path]]
EPOCHS = 20
SETTINGS = Params.model_validate({"register": {"name": "capnet", "experiment": "capnet"}})
CURVES = ("train/loss", "train/learning_rate", "val/mAP", "val/head", "val/medium", "val/tail")


@pytest.fixture
def own() -> Params:
    """Settings with an experiment and a model that no other test of the server has."""
    name = f"capnet {uuid.uuid4()}"
    return Params.model_validate({"register": {"name": name, "experiment": name}})


@pytest.fixture
def proxy(server: str, own: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Unreliable]:
    """A real server behind a proxy; its address is the tracking server's, and time-outs are short."""
    with unreliable(server) as found:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", found.address)
        monkeypatch.setenv("CAPNET_STATE", str(tmp_path / "state"))
        for name, value in (("TIMEOUT", "2"), ("MAX_RETRIES", "0")):
            monkeypatch.setenv(f"MLFLOW_HTTP_REQUEST_{name}", value)
        (tmp_path / "params.yaml").write_text(f"register:\n  name: {own.register_.name}\n")
        monkeypatch.chdir(tmp_path)
        yield found


def train(
    paths: dict[str, Path],
    settings: Params = SETTINGS,
    last: int = EPOCHS,
    at: dict[int, Callable[[], object]] | None = None,
) -> float:
    """What stages.run does around the train step; ``at`` happens before an epoch. Seconds that tracking took in all."""
    begin, idle = time.monotonic(), 0.0
    with tracked("train", settings, {}, {"model": paths["model"]}) as log:
        for epoch in range(1, last + 1):
            (at or {}).get(epoch, lambda: None)()
            log(dict.fromkeys(CURVES, epoch / 100), epoch)
            time.sleep(0.02)
            idle += 0.02
    return time.monotonic() - begin - idle


def sync() -> str:
    result = CliRunner().invoke(main, ["sync"], catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def the_run(server: str, settings: Params = SETTINGS) -> tuple[MlflowClient, str]:
    client = MlflowClient(server)
    found = client.get_experiment_by_name(settings.register_.experiment)
    assert found is not None
    runs = client.search_runs([found.experiment_id])
    assert len(runs) == 1, "one run for one execution"
    return client, str(runs[0].info.run_id)


def check_complete(server: str, settings: Params = SETTINGS) -> None:
    client, run_id = the_run(server, settings)
    for name in CURVES:
        history = client.get_metric_history(run_id, name)
        assert [(point.step, point.value) for point in history] == [
            (epoch, epoch / 100) for epoch in range(1, EPOCHS + 1)
        ], name
        assert [point.timestamp for point in history] == sorted(point.timestamp for point in history)
    assert client.get_run(run_id).info.status == "FINISHED"


def test_training_evaluation_and_registration_make_one_complete_run(
    proxy: Unreliable, server: str, own: Params, make_outputs: Make
) -> None:
    paths = make_outputs(epochs=EPOCHS)
    train(paths, own)
    end = time.monotonic() + 30
    while time.monotonic() < end and any(spool.records(int(spool.sent(proxy.address)["sent"])) for spool in spools()):
        time.sleep(0.2)  # nobody syncs: the sender of the stage does it
    check_complete(server, own)
    candidate = read_candidate(**paths)
    with tracked("evaluate", own, {"model": paths["model"]}, {}) as log:
        log(candidate.headline, 0)
    version = register_version(
        own.register_, candidate, paths["evaluation"] / "report.html", "0123456789abcdef0123456789abcdef.dir"
    )
    client, run_id = the_run(server, own)
    assert version.run_id == run_id
    check_complete(server, own)
    run = client.get_run(run_id)
    evaluated = {
        name: value for name, value in run.data.metrics.items() if not name.startswith(("train/", "val/", "system/"))
    }
    assert evaluated == figures(candidate)
    assert [len(client.get_metric_history(run_id, name)) for name in evaluated] == [1] * len(evaluated)
    assert "system/process_memory_megabytes" in run.data.metrics
    assert run.data.params["train.loss.name"] == "db_focal"
    assert {"settings_fingerprint", "split_sha256", "content_hash", "git_revision"} - run.data.tags.keys() <= {
        "git_revision"
    }
    (data,) = run.inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest) == ("data", "0123456789abcdef0123456789abcdef.dir")
    assert sync() == f"sync: nothing to send to {proxy.address}\n"


@pytest.mark.parametrize("mode", ["error", "gone", "lost", "stall"])
def test_a_server_that_fails_in_mid_run_gets_everything_later_and_once(
    proxy: Unreliable, server: str, own: Params, make_outputs: Make, mode: str
) -> None:
    paths = make_outputs()
    begin = time.monotonic()
    cost = train(paths, own, at={8: lambda: setattr(proxy, "mode", mode)})
    assert cost < live.PATIENCE + 2.5, "the stage does not wait for the server"
    assert time.monotonic() - begin < 10
    proxy.mode = "lost"
    CliRunner().invoke(main, ["sync"])  # fails, although the server did what it was asked
    proxy.mode = "ok"
    sync()
    check_complete(server, own)
    assert sync() == f"sync: nothing to send to {proxy.address}\n"
    check_complete(server, own)


def test_a_server_that_was_never_there_and_a_registration_elsewhere(
    make_outputs: Make, database: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    good = os.environ["MLFLOW_TRACKING_URI"]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    paths = make_outputs(epochs=EPOCHS)
    assert train(paths) < live.PATIENCE + 2.5
    monkeypatch.setenv("MLFLOW_TRACKING_URI", good)
    version = register_version(SETTINGS.register_, read_candidate(**paths), paths["evaluation"] / "report.html")
    check_complete(good)
    assert version.run_id == the_run(good)[1]


def test_without_training_records_registration_makes_the_run_from_the_files(database: Path, make_outputs: Make) -> None:
    paths = make_outputs(epochs=EPOCHS)
    register_version(SETTINGS.register_, read_candidate(**paths), paths["evaluation"] / "report.html")
    client, run_id = the_run(os.environ["MLFLOW_TRACKING_URI"])
    assert len(client.get_metric_history(run_id, "train/loss")) == EPOCHS


def test_training_again_what_is_registered_completes_its_own_run(database: Path, make_outputs: Make) -> None:
    paths = make_outputs()
    first = register_version(SETTINGS.register_, read_candidate(**paths), paths["evaluation"] / "report.html")
    train(paths)
    assert (
        register_version(SETTINGS.register_, read_candidate(**paths), paths["evaluation"] / "report.html").version
        == first.version
    )
    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    (other,) = client.search_runs(
        [client.get_run(first.run_id).info.experiment_id], "tags.same_as = 'capnet version 1'"
    )
    assert other.info.run_id != first.run_id
    assert other.data.metrics["mAP"] == 0.5


def test_a_given_run_is_adopted_and_left_open(
    database: Path, make_outputs: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    given = client.create_run(
        client.create_experiment("of a pipeline", artifact_location=(database.parent / "there").as_uri())
    ).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", given)
    paths = make_outputs(epochs=EPOCHS)
    train(paths)
    (tmp := Path("params.yaml")).write_text("register:\n  name: capnet\n")
    assert f"records to run {given}" in sync()
    tmp.unlink()
    version = register_version(SETTINGS.register_, read_candidate(**paths), paths["evaluation"] / "report.html")
    assert version.run_id == given
    assert client.get_run(given).info.status == "RUNNING"
    assert len(client.get_metric_history(given, "train/loss")) == EPOCHS


def test_a_stage_that_fails_or_is_killed_says_so(proxy: Unreliable, server: str, own: Params) -> None:
    with pytest.raises(ZeroDivisionError), tracked("train", own, {}, {}) as log:
        log({"train/loss": 1 / 0}, 1)
    script = "import sys, time; from capnet.config import Params; from capnet.tracking.live import tracked\n"
    script += f"own = Params.model_validate({own.model_dump(by_alias=True, include={'register_'})})\n"
    script += (
        "with tracked('train', own, {}, {}) as log:\n    log({'train/loss': 1.0}, 1); print('up', flush=True);"
        " time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    client, end = MlflowClient(server), time.monotonic() + 60
    statuses: list[str] = []
    while time.monotonic() < end and sorted(statuses) != ["FAILED", "KILLED"]:
        time.sleep(0.5)
        found = client.get_experiment_by_name(own.register_.experiment)
        statuses = [run.info.status for run in client.search_runs([found.experiment_id])] if found else []
    assert sorted(statuses) == ["FAILED", "KILLED"]


def test_a_thousand_epochs_cost_little_and_numbers_that_are_none_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPNET_STATE", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///not-there.db")
    begin = time.monotonic()
    with tracked("train", SETTINGS, {}, {}) as log:
        for epoch in range(1000):
            log({"train/loss": float("nan"), "val/mAP": 0.5}, epoch)
    assert time.monotonic() - begin < 1.0
    (spool,) = spools()
    assert set(spool.records(0)[0]["values"]) == {
        "val/mAP",
        "system/cpu_utilization_percentage",
        "system/process_memory_megabytes",
    }


def test_a_full_disk_does_not_stop_training_and_damages_no_other_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPNET_STATE", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///not-there.db")
    script = """import resource, sys
from capnet.config import Params
from capnet.tracking.live import tracked
with tracked('train', Params(), {}, {}) as log:
    for epoch in range(30):
        if epoch == 10: resource.setrlimit(resource.RLIMIT_FSIZE, (2500, resource.RLIM_INFINITY))
        if epoch == 20: resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        log({'train/loss': 1.0}, epoch)
"""
    subprocess.run(
        [sys.executable, "-c", "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n" + script], check=True
    )
    (spool,) = spools()
    steps = [record["step"] for record in spool.records(0) if record["kind"] == "metrics" and record["values"]]
    assert steps[:10] == list(range(10))
    assert steps[-10:] == list(range(20, 30))
    assert len(steps) < 30


def test_a_damaged_line_keeps_the_numbers_of_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPNET_STATE", str(tmp_path))
    spool = open_spool("e", "n", "")
    spool.add({"kind": "metrics", "values": {"a": 1.0}, "step": 1})
    with open(spool.folder / "records.jsonl", "ab") as file:
        file.write(b"{\x00\n[]\n")
    spool.add({"kind": "metrics", "values": {"a": 2.0}, "step": 2})
    with open(spool.folder / "records.jsonl", "ab") as file:
        file.write(b'{"kind": "met')
    assert [record["values"] for record in spool.records(0)] == [{"a": 1.0}, {}, {}, {"a": 2.0}]
    assert [record["step"] for record in spool.records(3)] == [2]
    spool.add({"kind": "end", "status": "KILLED"})
    assert [record["kind"] for record in spool.records(3)] == [
        "metrics",
        "metrics",
        "end",
    ], "what follows half a line is not lost with it"


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("gone", ["database", "run"])
def test_a_model_is_registered_again_where_the_run_that_trained_it_is_gone(
    database: Path, empty_database: Path, make_outputs: Make, gone: str, late: bool
) -> None:
    paths = make_outputs()
    train(paths, last=3)

    def register() -> ModelVersion:
        return register_version(Register(), read_candidate(**paths), paths["evaluation"] / "report.html")

    first, client = register(), MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    if late:
        spools()[0].add({"kind": "metrics", "values": {"late": 1.0}, "step": 9})
    if gone == "database":
        shutil.copy(empty_database, database)
    else:
        client.delete_run(first.run_id)
        client.delete_model_version(first.name, first.version)
    again = register()
    assert again.run_id != first.run_id
    metrics = client.get_run(again.run_id).data.metrics
    assert "train/loss" in metrics
    assert "mAP" in metrics
    assert ("late" in metrics) == (late and gone == "database"), "an empty database is told everything"


def test_records_of_a_deleted_run_do_not_hold_up_the_others(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("params.yaml").write_text("register:\n  name: capnet\n")
    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    deleted = client.create_run(client.create_experiment("pipeline")).info.run_id
    client.delete_run(deleted)
    for run_id in (deleted, "0" * 32, ""):
        open_spool("capnet", "capnet-train", run_id).add({"kind": "metrics", "values": {"train/loss": 0.5}, "step": 0})
    found = CliRunner().invoke(main, ["sync"])
    assert found.exit_code == 1
    assert str(found.exception).count("records of a run that was deleted, or is not in this store: 1") == 2
    experiment = client.get_experiment_by_name("capnet")
    assert experiment is not None
    assert [run.data.metrics["train/loss"] for run in client.search_runs([experiment.experiment_id])] == [0.5]


def test_only_one_sends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPNET_STATE", str(tmp_path))
    spool = open_spool("e", "n", "")
    with spool.lock(0.0) as first, Spool(spool.folder).lock(0.2) as second:
        assert (first, second) == (True, False)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (
            "[core]\n    remote = store\n['remote \"store\"']\n    url = s3://bucket/dvc/\n",
            "s3://bucket/dvc/files/md5/01/23.dir",
        ),
        ("[core]\n    analytics = false\n", ""),
        ("[core\n", ""),
    ],
)
def test_the_place_of_the_data_comes_from_dvcs_settings(tmp_path: Path, text: str, place: str) -> None:
    (tmp_path / "config").write_text(text)
    assert dvc_location(tmp_path / "config", "0123.dir") == place
    assert dvc_location(tmp_path / "nothing", "0123.dir") == ""
