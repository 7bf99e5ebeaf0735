"""The whole pipelines under KFP's DockerRunner: images by digest, pictures from a real S3 server, models in a real
MLflow server.

KFP takes a container that is gone before it is asked for as a success, so these tests look at what was written.
"""

from __future__ import annotations

import base64
import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import pandas as pd
import pytest
from container.conftest import Built, Servers, Submitter
from e2e.workspace import Workspace
from mlflow.tracking import MlflowClient
from same_results import assert_same_results, of_pipeline, of_shell, the_run
from services.s3_server import free_ports

from capnet.contracts import read_json, read_predictions, read_split

NAME = "capnet-demo"
CALIBRATED = {f"evaluation/{name}" for name in ("evaluation.json", "metrics.json", "thresholds.json", "report.html")}


@pytest.fixture(scope="module")
def run(submit: Submitter, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training run that succeeded. Before it, nothing is registered."""
    runs = tmp_path_factory.mktemp("runs")
    done = submit("training", runs)
    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
    return the_run(runs)


def versions(servers: Servers) -> list[Any]:
    return list(MlflowClient(servers.mlflow.address).search_model_versions(f"name = '{NAME}'"))


@pytest.mark.parametrize(
    ("settings", "task", "why", "named", "before"),
    [
        (
            ("backbone.name=ViT-B-16", "backbone.pretrained=/nowhere/weights.pt"),
            "graph",
            "data error, exit code 3",
            "/nowhere/weights.pt",
            {"fetch", "ingest", "split", "validate"},
        ),
        (("validate.min_side=9000",), "validate", "gate error, exit code 5", "9000", {"fetch", "ingest", "split"}),
    ],
    ids=["exit code 3", "red gate"],
)
def test_a_failing_task_is_named_and_nothing_after_it_runs(
    submit: Submitter,
    servers: Servers,
    tmp_path: Path,
    settings: tuple[str, ...],
    task: str,
    why: str,
    named: str,
    before: set[str],
) -> None:
    done = submit("training", tmp_path, *(word for setting in settings for word in ("--set", setting)))
    assert done.returncode == 6, done.stdout[-3000:]
    assert f"the task {task} failed: {why}" in done.stderr
    assert named in done.stdout + done.stderr, "the task's own message"
    begun = {folder.name for folder in the_run(tmp_path).iterdir() if folder.is_dir() and any(folder.iterdir())}
    assert begun - {task, "outcome"} == before
    assert versions(servers) == []


def test_an_image_that_the_registry_does_not_have_is_named(submit: Submitter, built: Built, tmp_path: Path) -> None:
    digest = built.locked.data.rpartition("@")[2]
    lock = tmp_path / "lock.yaml"
    lock.write_text(built.lock.read_text().replace(digest, f"sha256:{'0' * 64}"))
    done = submit("training", tmp_path / "runs", lock=lock)
    assert done.returncode == 6, done.stdout + done.stderr
    assert "Docker could not run the task fetch: " in done.stderr
    assert "manifest unknown" in done.stderr
    assert "make images push" in done.stderr


def test_containers_give_what_dvc_repro_gives(run: Path, workspace: Workspace) -> None:
    unequal = assert_same_results(of_shell(workspace.root / "outputs"), of_pipeline(run))
    assert set(unequal) <= CALIBRATED, (
        "another C library may round the fit of the calibration differently, and nothing else"
    )
    assert "<html" in next(run.glob("report/report*")).read_text()


def test_the_model_is_in_the_mlflow_server(run: Path, servers: Servers, built: Built) -> None:
    (version,) = versions(servers)
    record = read_json(run / "register" / "registration" / "registration.json")
    assert version.tags["content_hash"] == record["content_hash"]
    assert "challenger" in MlflowClient(servers.mlflow.address).get_registered_model(NAME).aliases
    label = built.engine.inspect(built.tags["train"])["Config"]["Labels"]["org.opencontainers.image.revision"]
    assert json.loads(version.tags["provenance"])["git_revision"] == label


@pytest.fixture(scope="module")
def champion(run: Path, workspace: Workspace, submit: Submitter) -> None:
    """The registered version, promoted by the command."""
    command = ["capnet", "promote", "--params", str(workspace.root / "params.yaml")]
    environment = {**workspace.environment(), **submit.servers.environment}
    done = subprocess.run(command, cwd=workspace.root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.usefixtures("champion")
def test_the_prediction_pipeline_gives_the_scores_of_the_evaluation(
    run: Path, submit: Submitter, tmp_path: Path
) -> None:
    done = submit("prediction", tmp_path, "--shards", "2")
    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
    table = pd.read_parquet(
        the_run(tmp_path, "prediction") / "merge" / "predictions" / "predictions.parquet"
    ).set_index("path")
    split = read_split(run / "split" / "split" / "split.parquet")
    assert len(table) == len(split)
    expected = evaluated_scores(run)
    scores = table[[name for name in table.columns if name.startswith("score")]]
    for path, expected_scores in expected.items():
        row = next(result for name, result in scores.iterrows() if str(name).endswith(path))
        assert row.tolist() == pytest.approx(expected_scores, abs=1e-4)


def evaluated_scores(run: Path) -> dict[str, list[float]]:
    """Served scores of five test pictures, as evaluate wrote them, by path."""
    split = read_split(run / "split" / "split" / "split.parquet").set_index("image_id")
    table = read_predictions(run / "evaluate" / "evaluation" / "predictions.parquet")
    table = table[(table["variant"] == "capnet") & (table["split"] == "test")].iloc[:5]
    return {
        str(split.loc[name, "path"]): list(scores)
        for name, scores in zip(table["image_id"], table["scores"], strict=True)
    }


@contextmanager
def container(built: Built, image: str, *options: str) -> Iterator[str]:
    """A container in the background; it is removed at the end."""
    name = built.engine.docker("run", "--detach", *options, image).strip()
    try:
        yield name
    finally:
        built.engine.docker("rm", "--force", name)


@pytest.mark.usefixtures("champion")
def test_the_serve_image_answers_with_the_scores_of_the_evaluation(
    run: Path, built: Built, servers: Servers, workspace: Workspace
) -> None:
    (port,) = free_ports(1)
    settings = {
        "MLFLOW_TRACKING_URI": servers.mlflow.address,
        "CAPNET_MODEL": f"models:/{NAME}@champion",
        "CAPNET_PORT": str(port),
    }
    options = [
        "--network",
        "host",
        "--read-only",
        "--tmpfs",
        "/tmp",
        "--user",
        "7654321:0",
        *(f"--env={key}={value}" for key, value in settings.items()),
    ]
    (path, expected_scores), *_ = evaluated_scores(run).items()
    body = json.dumps(
        {"dataframe_records": [{"image": base64.b64encode((workspace.root / "data" / path).read_bytes()).decode()}]}
    ).encode()
    with container(built, built.tags["serve"], *options) as name:
        end = time.monotonic() + 180
        while True:
            try:
                with urlopen(f"http://127.0.0.1:{port}/ping", timeout=2):
                    break
            except (URLError, OSError):
                state = built.engine.docker("inspect", "--format", "{{.State.Running}}", name).strip()
                log = built.engine.try_docker("logs", name)
                assert state == "true", log.stdout + log.stderr
                assert time.monotonic() < end, log.stdout + log.stderr
                time.sleep(0.5)
        request = Request(
            f"http://127.0.0.1:{port}/invocations", data=body, headers={"Content-Type": "application/json"}
        )
        with urlopen(request, timeout=60) as answer:
            rows = json.load(answer)["predictions"]
        built.engine.docker("stop", "--time", "30", name)
        code = built.engine.docker("inspect", "--format", "{{.State.ExitCode}}", name).strip()
    assert code == "0", "SIGTERM ends it, and no SIGKILL after 30 s (137)"
    assert [row["score"] for row in rows] == pytest.approx(expected_scores, abs=1e-4)
