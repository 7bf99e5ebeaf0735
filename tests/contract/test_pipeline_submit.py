"""`python -m pipelines.submit` with the real kfp.Client against a stand-in server that keeps state."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from contract import submit_command
from contract.submit_command import SubmitCommand

from capnet.errors import ConfigError
from pipelines import submit
from pipelines.errors import RunFailed

server = submit_command.server


def test_the_first_version_is_named_by_the_revision_and_a_second_submission_uploads_nothing(
    server: SubmitCommand,
) -> None:
    first, second = server.good(), server.good()
    revision = submit.git_revision()
    (version,) = server.state.versions.values()
    assert version["display_name"].startswith(revision[:12])
    assert ": uploaded" in first
    assert ": already there" in second
    assert [item["display_name"] for item in server.state.pipelines.values()] == ["capnet-training"]
    assert len(server.state.runs) == 2
    assert f"run: {server.host}/#/runs/details/runs-1" in first


def test_the_addresses_that_are_printed_are_those_of_the_page(
    server: SubmitCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KF_PIPELINES_UI_ENDPOINT", "https://kubeflow.example.com/pipeline/")
    assert "run: https://kubeflow.example.com/pipeline/#/runs/details/runs-1" in server.good()
    output = server.good("--schedule", "0 3 * * 1")
    assert ": https://kubeflow.example.com/pipeline/#/recurringrun/details/recurringruns-1" in output


def test_an_option_with_one_value_is_given_once(server: SubmitCommand) -> None:
    done = server.run("--memory", "8Gi", "--memory=16Gi")
    assert done.exit_code == 2
    assert "Error: --memory is given twice: give one\n" in done.stderr
    assert not server.state.runs
    server.good("--set", "train.epochs=3", "--set", "train.seeds=[1]", "--no-cache", "--no-cache")


def test_an_option_fixed_at_compile_time_is_another_version(server: SubmitCommand) -> None:
    for size in ("1Gi", "2Gi", "3Gi", "4Gi", "1Gi"):  # more than a page of the server's list
        server.good("--shared-memory", size)
    assert len(server.state.versions) == 4
    assert len({item["display_name"] for item in server.state.versions.values()}) == 4


def test_the_run_has_the_settings_of_params_yaml_and_the_clusters(server: SubmitCommand) -> None:
    server.good(
        *(
            "--set",
            "train.epochs=7",
            "--set",
            "train.seeds=[3,4]",
            "--accelerator-type",
            "amd.com/gpu",
            "--accelerator-count",
            "2",
            "--memory",
            "30Gi",
        ),
        *(
            "--node-selector",
            "pool=gpu",
            "--tolerations",
            '[{"key": "gpu", "operator": "Exists"}]',
            "--s3-secret",
            "mine",
            "--experiment",
            "birds",
        ),
    )
    (run,) = server.state.runs.values()
    arguments = run["runtime_config"]["parameters"]
    params = yaml.safe_load((server.repository / "params.yaml").read_text())
    assert arguments["ingest"] == {"data": {**params["data"], "root": "/mnt/data/birds"}, "ingest": params["ingest"]}
    assert arguments["train"]["train"] == {**params["train"], "epochs": 7, "seeds": []}
    assert (arguments["first_seed"], arguments["further_seeds"]) == (3, [4])
    assert (arguments["accelerator_type"], arguments["accelerator_count"], arguments["memory"]) == (
        "amd.com/gpu",
        "2",
        "30Gi",
    )
    assert (arguments["node_selector"], arguments["tolerations"], arguments["s3_secret"]) == (
        {"pool": "gpu"},
        [{"key": "gpu", "operator": "Exists"}],
        "mine",
    )
    assert [item["display_name"] for item in server.state.experiments.values()] == ["birds"]


def test_prediction_is_submitted_with_its_parts_and_model(server: SubmitCommand) -> None:
    server.good(
        "--pictures",
        "s3://bucket/new",
        "--shards",
        "3",
        "--model",
        "models:/birds/4",
        "--set",
        "data.connections=1",
        pipeline="prediction",
    )
    (run,) = server.state.runs.values()
    arguments = run["runtime_config"]["parameters"]
    assert arguments["fetch"]["data"]["root"] == "s3://bucket/new"
    assert (arguments["shards"], arguments["shard_count"], arguments["model"]) == ([0, 1, 2], 3, "models:/birds/4")


def test_waiting_shows_progress_and_ends_well(server: SubmitCommand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    detail = {"display_name": "train", "state": "RUNNING"}
    server.state.story = [
        {"state": "RUNNING", "run_details": {"task_details": [detail]}},
        {"status": 502},
        {"state": "RUNNING", "run_details": {"task_details": [detail]}},
        {"state": "SUCCEEDED", "run_details": {"task_details": [{**detail, "state": "SUCCEEDED"}]}},
    ]
    output = server.good("--wait")
    assert output.count("train: running") == 1
    assert "train: succeeded" in output
    assert output.endswith("the run succeeded\n")


def test_a_failed_run_is_named_with_its_task(server: SubmitCommand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    failed = {"display_name": "validate", "state": "FAILED", "error": {"code": 5, "message": "12 copies\nacross sides"}}
    server.state.story = [
        {"state": "FAILED", "run_details": {"task_details": [{"display_name": "split", "state": "SUCCEEDED"}, failed]}}
    ]
    result = server.run("--wait")
    assert isinstance(result.exception, RunFailed)
    assert "FAILED: validate (12 copies across sides)" in str(result.exception)


@pytest.mark.parametrize(
    ("pipeline", "more"),
    [
        ("training", ("--set", "train.seeds=[3,4,5]")),
        ("prediction", ("--shards", "2")),
    ],
)
def test_no_task_of_a_loop_is_refused_its_parameters(
    server: SubmitCommand, pipeline: str, more: tuple[str, ...]
) -> None:
    assert server.good("--wait", *more, pipeline=pipeline).endswith("the run succeeded\n")


def test_one_failed_turn_of_a_loop_is_named_among_those_that_went_well(
    server: SubmitCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    turns = [
        {"task_id": f"t{number}", "display_name": "train", "state": state}
        for number, state in enumerate(("SUCCEEDED", "FAILED", "SUCCEEDED"))
    ]
    turns[1]["error"] = {"code": 137, "message": "OOMKilled"}  # type: ignore[assignment]
    server.state.story = [{"state": "FAILED", "run_details": {"task_details": turns}}]
    result = server.run("--wait")
    assert "FAILED: train (OOMKilled)" in str(result.exception)
    assert result.output.count("train: succeeded") == 2
    assert result.output.count("train: failed") == 1


def test_a_server_that_is_gone_for_good_ends_the_wait(server: SubmitCommand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    server.state.story = [{"status": 503}]
    assert "answers 503" in str(server.run("--wait").exception)


@pytest.mark.parametrize(
    ("arguments", "uncached"), [(["--no-cache"], 9), (["--no-cache-from", "evaluate"], 3), ([], 1)]
)
def test_caching_is_switched_off_for_all_or_from_a_stage_on(
    server: SubmitCommand, arguments: list[str], uncached: int
) -> None:
    server.good(*arguments)
    (version,) = server.state.versions.values()
    dag = version["spec"]["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    assert sum(not task["cachingOptions"].get("enableCache") for task in dag.values()) == uncached


def test_a_dry_run_prints_the_pipeline_and_asks_no_server(server: SubmitCommand) -> None:
    spec, platform = yaml.safe_load_all(server.good("--dry-run"))
    assert spec["pipelineInfo"]["name"] == "capnet-training"
    assert platform["platforms"]
    assert server.state.seen == []


def test_without_a_lock_the_error_names_the_command(server: SubmitCommand, tmp_path: Path) -> None:
    result = server.run(lock=tmp_path / "none.yaml")
    assert isinstance(result.exception, ConfigError)
    assert "make images push" in str(result.exception)
    assert server.state.seen == []


def test_the_version_is_named_by_commit_and_content() -> None:
    assert submit.version_name("a" * 40, "x") == f"{'a' * 12}-2d711642"
    assert submit.version_name("a" * 40 + "-changed", "x") == f"{'a' * 12}-changed-2d711642"


def test_help_waits_for_no_large_library(repository: Path) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "pipelines.submit", "--help"]
    done = subprocess.run(command, cwd=repository, check=True, capture_output=True, text=True)
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "pipelines" in imported
    assert not imported & {"kfp", "kubernetes", "mlflow", "torch", "pandas", "sklearn"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "data.root = data is a folder of this machine, and no pod sees it"),
        (("--data-volume",), "data.root = data is a folder of this machine, and no pod sees it"),
        (("--set", "data.root=/mnt/data/birds"), "add --data-volume"),
        (("--set", "data.root=/mnt/database", "--data-volume"), "is a folder of this machine"),
    ],
)
@pytest.mark.parametrize("pipeline", ["training", "prediction"])
def test_pictures_that_no_pod_would_find_are_named_before_anything_is_uploaded(
    server: SubmitCommand, pipeline: str, arguments: tuple[str, ...], message: str
) -> None:
    error = server.run(*arguments, pipeline=pipeline, pictures=()).exception
    assert isinstance(error, ConfigError)
    assert message in str(error)
    assert not server.state.pipelines


def test_pictures_in_s3_and_on_the_volume_are_taken(server: SubmitCommand, monkeypatch: pytest.MonkeyPatch) -> None:
    # nobody is there: a machine that does not reach the cluster's store
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    server.good(pictures=("--set", "data.root=s3://birds/set", "--set", "data.anonymous=true"))
    server.good("--pictures", "/mnt/data/new", pipeline="prediction", pictures=("--data-volume",))
    assert len(server.state.runs) == 2
