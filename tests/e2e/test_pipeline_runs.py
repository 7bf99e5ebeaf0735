"""Both pipelines as a user types them, on this machine, with KFP's SubprocessRunner: equal to the stages one by one
(which test_reruns.py compares with `dvc repro`), safe when things go wrong.
"""

from __future__ import annotations

import csv
import html
import json
import re
import shutil
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
from e2e.workspace import QUICK, Workspace, draw, merge, small_workspace
from same_results import assert_same_metrics, assert_same_results, of_pipeline, of_shell, the_run

from capnet.contracts import read_json, read_tensors

# long enough for a checkpoint before its end; validation rows, so no fold is trained
SETTINGS = merge(QUICK, {"split": {"validation": {"source": "train"}}, "train": {"epochs": 100, "validate_every": 50}})
SEEDS = (0, 1)


@dataclass(frozen=True)
class Run:
    """One finished call of pipelines.submit: what it printed, and the run's folder."""

    output: str
    folder: Path

    @property
    def log(self) -> str:
        return (self.folder / "log.txt").read_text()


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """After all seven stages, which nobody interrupted."""
    workspace = small_workspace(tmp_path_factory.mktemp("pipelines"))
    workspace.settings(SETTINGS)
    workspace.versioned()
    workspace.stages()
    return workspace


@pytest.fixture(scope="module")
def trained(workspace: Workspace) -> Run:
    """Two seeds through the pipeline. Training of the first is killed once, at its first checkpoint, and tried
    again.
    """
    process = workspace.submit("training", "--set", f"train.seeds={list(SEEDS)}", "--retries", "1")
    try:
        step = kill_training(process.pid, workspace)
        output, _ = process.communicate(timeout=600)
    finally:
        process.kill()
    assert process.returncode == 0, output
    run = Run(output, the_run(workspace.root / "runs"))
    assert f"training goes on after step {step} of" in run.log
    return run


def kill_training(submit: int, workspace: Workspace) -> int:
    """Kill the process of task train, first seed, once it has a checkpoint; returns the step of that."""
    deadline = time.monotonic() + 400
    while time.monotonic() < deadline:
        checkpoints = list((workspace.root / ".capnet" / "train").glob("*/main/checkpoint.safetensors"))
        if checkpoints:  # no sooner: to go through all processes of the machine, again and again, takes time of its own
            children = psutil.Process(submit).children(recursive=True)
            if result := [child for child in children if trains(child, SEEDS[0])]:
                result[0].kill()
                result[0].wait(30)
                (path,) = checkpoints
                return int(read_tensors(path)[1]["step"])
        time.sleep(0.05)
    raise AssertionError("training of the first seed kept no checkpoint")


def trains(process: psutil.Process, seed: int) -> bool:
    """Whether this is the Python that runs task train for ``seed``, not the shell around it."""
    try:
        words = process.cmdline()
    except psutil.Error:
        return False
    if "python" not in Path(words[0] if words else "").name or "--executor_input" not in words or "train" not in words:
        return False
    arguments = json.loads(words[words.index("--executor_input") + 1])["inputs"]["parameterValues"]
    return arguments.get("seed") == seed


# ---------------------------------------------------------------- training


def test_a_run_killed_and_tried_again_gives_the_bytes_of_uninterrupted_stages(
    workspace: Workspace, trained: Run
) -> None:
    assert assert_same_results(of_shell(workspace.root / "outputs"), of_pipeline(trained.folder)) == []


def test_the_comparison_sees_a_difference(workspace: Workspace) -> None:
    metrics = read_json(workspace.root / "outputs" / "evaluation" / "evaluation.json")
    changed = json.loads(json.dumps(metrics))
    changed["capnet"]["mAP"] += 2e-6
    with pytest.raises(AssertionError):
        assert_same_metrics(metrics, changed)


def test_the_first_seed_is_registered_and_the_report_has_mean_and_deviation(workspace: Workspace, trained: Run) -> None:
    further = trained.folder / "for-loop-2-iteration-0" / "evaluate-2" / "evaluation"
    folders = (trained.folder / "evaluate" / "evaluation", further)
    metrics = [read_json(folder / "evaluation.json")["capnet"] for folder in folders]
    assert metrics[0] != metrics[1], "both seeds gave the same: was the seed used?"
    page = (trained.folder / "report.html").read_text()
    section = page[page.index('<section id="seeds">') : page.index("</section>", page.index('<section id="seeds">'))]
    rows = {
        cells[0]: cells[1:]
        for cells in (re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", row) for row in section.split("<tr>")[2:])
    }
    for name in ("mAP", "head", "medium"):
        values = [100 * item[name] for item in metrics]
        assert [float(cell) for cell in rows[name]] == pytest.approx(
            [statistics.mean(values), statistics.stdev(values), *values], abs=0.006
        )
    # the rest of the page is the first seed's own report
    assert html.unescape(page.replace(section + "</section>", "")) == html.unescape(
        (folders[0] / "report.html").read_text()
    )

    from mlflow.tracking import MlflowClient

    result = read_json(trained.folder / "register" / "registration" / "registration.json")
    client = MlflowClient(f"sqlite:///{workspace.root}/mlflow.db")
    version = client.get_model_version_by_alias(result["name"], result["alias"])
    assert version.tags["content_hash"] == result["content_hash"]
    by_stages = read_json(workspace.root / "outputs" / "registration.json")
    assert by_stages == result, "the version of the stages is the same model"
    assert [item.version for item in client.search_model_versions(f"name='{result['name']}'")] == [version.version], (
        "registered twice"
    )


def test_the_terminal_says_in_a_screen_what_happened_and_what_is_next(workspace: Workspace, trained: Run) -> None:
    lines = trained.output.splitlines()
    assert len(lines) < 45, trained.output
    before = ["fetch", "ingest", "split", "validate", "graph"]
    # in whatever order KFP takes them
    seeds = [f"{task}, seed {seed}" for seed in SEEDS for task in ("train", "evaluate")]
    result = [match[1] for line in lines if (match := re.match(r"(\S.*?) +\d+\.\d s  (?!FAILED)", line))]
    assert result[:5] == before
    assert sorted(result[5:9]) == sorted(seeds)
    assert result[9:] == ["report", "register"]
    assert any("tried again" in line for line in lines)
    output = {
        key.strip(): value.strip()
        for key, _, value in (line.partition(":") for line in lines[lines.index("the run succeeded") + 1 :])
    }
    assert (workspace.root / output["report"]).is_file()
    assert output["registered"] == "capnet version 1, alias challenger"
    assert output["next"].startswith("capnet promote --version 1 ")


# ---------------------------------------------------------------- what ends a run


@pytest.fixture
def other(workspace: Workspace, tmp_path: Path) -> Workspace:
    """The pictures and settings again, nothing run."""
    shutil.copytree(workspace.root / "data", tmp_path / "data")
    shutil.copy(workspace.root / "params.yaml", tmp_path)
    return Workspace(tmp_path)


def ended(workspace: Workspace, output: str, task: str, why: str) -> None:
    """The run failed in ``task``, said why, and neither trained nor registered."""
    assert f"pipelines.submit: run error\nthe task {task} failed: {why}" in output
    assert "Traceback" not in output
    folder = the_run(workspace.root / "runs")
    assert f"where: runs/{folder.name}/log.txt" in output
    wrote = {path.name for path in folder.iterdir() if path.is_dir()}
    assert task in wrote
    assert not wrote & {"graph", "train", "evaluate", "report", "register"}
    assert "outcome" in wrote, "the exit handler runs whatever happened"
    assert not (workspace.root / "mlflow.db").exists()


def test_pictures_that_cannot_be_read_end_the_run_in_ingest(other: Workspace) -> None:
    for number in (4, 7, 9):
        (other.root / "data" / "images" / f"{number:03}.jpg").write_bytes(b"no picture")
    code, output = other.submitted("training")
    assert code == 6
    ended(other, output, "ingest", "data error, exit code 3")
    assert "images/004.jpg" in output
    assert "where: labels.csv row 6" in output


def test_a_picture_on_both_sides_ends_the_run_in_the_gate(other: Workspace) -> None:
    with open(other.root / "data" / "labels.csv", newline="") as file:
        rows = [{**row, "split": ""} for row in csv.DictReader(file)]
    for split in ("train", "test"):
        rows.append({"path": f"images/{split}.jpg", "labels": "lemon", "split": split})
        shutil.copy(other.root / "data" / "images" / "003.jpg", other.root / "data" / "images" / f"{split}.jpg")
    other.labels(rows)
    code, output = other.submitted("training")
    assert code == 6
    ended(other, output, "validate", "gate error, exit code 5")
    assert "images/train.jpg" in output
    assert (the_run(other.root / "runs") / "validate" / "validation" / "validation.html").is_file(), "the findings stay"


# ---------------------------------------------------------------- prediction


@pytest.fixture(scope="module")
def new_pictures(workspace: Workspace) -> Path:
    """Seven pictures that nobody has labelled, one in a folder, and one broken."""
    import random

    folder, generator = workspace.root / "new", random.Random(5)
    for name in ("a.jpg", "b.jpg", "c.jpg", "d/e.jpg", "f.jpg", "g.jpg"):
        draw(folder / name, ["lemon", "blueberry"][: generator.randrange(3)], generator)
    (folder / "h.jpg").write_bytes(b"no picture")
    return folder


def test_a_red_champion_is_refused_before_a_picture_is_labelled(
    workspace: Workspace, trained: Run, new_pictures: Path
) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{workspace.root}/mlflow.db")
    client.set_model_version_tag("capnet", "1", "verdict", "red")
    client.set_registered_model_alias("capnet", "champion", "1")  # as somebody may in MLflow's pages
    code, output = workspace.submitted("prediction", "--pictures", "new", "--runs", "red")
    client.delete_registered_model_alias("capnet", "champion")
    assert code == 6
    assert "the task champion failed: gate error, exit code 5" in output
    assert "champion is capnet version 1, which has a red verdict" in output
    assert not list(the_run(workspace.root / "red", "prediction").rglob("predict*"))


def test_parts_put_together_are_what_capnet_predict_writes(
    workspace: Workspace, trained: Run, new_pictures: Path
) -> None:
    workspace.capnet("promote", "--yes")
    workspace.capnet("predict", "--input", "new", "--out", "whole.parquet")
    code, output = workspace.submitted("prediction", "--pictures", "new", "--shards", "2")
    assert code == 0, output
    folder = the_run(workspace.root / "runs", "prediction") / "merge" / "predictions"
    expected, result = (
        pd.read_parquet(workspace.root / "whole.parquet"),
        pd.read_parquet(folder / "predictions.parquet"),
    )
    assert list(result["path"]) == ["a.jpg", "b.jpg", "c.jpg", "d/e.jpg", "f.jpg", "g.jpg", "h.jpg"]
    words = ["path", "fault"]
    assert result[words].equals(expected[words])
    assert [list(row) for row in result["labels"]] == [list(row) for row in expected["labels"]]
    scores = [name for name in expected.columns if name.startswith("score ")]
    np.testing.assert_allclose(result[scores], expected[scores], rtol=0, atol=1e-6)
    assert_same_metrics(read_json(workspace.root / "whole.parquet.drift.json"), read_json(folder / "drift.json"))
    assert "labelled:    6 images, 1 not read" in output
    assert "drift:       too few images to tell" in output
    assert f"table:       runs/{folder.parents[1].name}/merge/predictions/predictions.parquet" in output
