"""One's own pictures through all stages: natural split, no validation side."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import socket
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd
import pytest
from e2e.workspace import Workspace, refuse, small_workspace

from capnet.contracts import (
    label_matrix,
    read_classes,
    read_graph,
    read_manifest,
    read_predictions,
    read_split,
    read_tensors,
)
from capnet.stages import STAGES


def outputs(workspace: Workspace) -> list[Path]:
    return sorted(path for path in (workspace.root / "outputs").rglob("*") if path.is_file())


def test_every_output_reads_back(finished: Workspace) -> None:
    folder = finished.root / "outputs"
    for stage in STAGES.values():
        for path in stage.outputs.values():
            assert (finished.root / path).exists(), f"{stage.name} left no {path}"
    assert len(read_manifest(folder / "manifest" / "manifest.parquet")) == 30
    split = read_split(folder / "split" / "split.parquet")
    classes = read_classes(folder / "split" / "classes.json")
    assert sorted(classes.names) == ["blueberry", "broccoli", "lemon", "strawberry"]
    train = split[split["split"] == "train"]
    assert classes.train_counts.tolist() == label_matrix(train["labels"], 4).sum(0).tolist()
    assert set(split["split"]) == {"train", "test"}, "nobody asked for a validation side"
    assert len(split) == 30, "method natural keeps every row"
    assert read_graph(folder / "graph" / "graph.safetensors", classes).adjacency.shape == (4, 4)
    tensors, _ = read_tensors(folder / "model" / "model.safetensors")
    assert (folder / "model" / "model.safetensors").stat().st_size < 30e6, "only trained tensors are saved"
    assert all(bool(tensor.isfinite().all()) for tensor in tensors.values() if tensor.is_floating_point())


def test_metrics_equal_scikit_learn_on_the_saved_scores(finished: Workspace) -> None:
    from sklearn.metrics import average_precision_score

    folder = finished.root / "outputs"
    metrics = json.loads((folder / "evaluation" / "evaluation.json").read_text())
    split = read_split(folder / "split" / "split.parquet").set_index("image_id")
    predictions = read_predictions(folder / "evaluation" / "predictions.parquet")
    assert {"capnet", "single_view", "zero_shot", "zero_shot_single_view", "linear_probe"} <= set(
        predictions["variant"]
    )
    for variant, rows in predictions[predictions["split"] == "test"].groupby("variant"):
        scores = np.stack(rows["scores"].to_list())
        assert scores.min() >= 0
        assert scores.max() <= 1
        truth = label_matrix(split.loc[rows["image_id"], "labels"], 4)
        scored = truth.any(0)
        expected = np.mean([average_precision_score(truth[:, c], scores[:, c]) for c in np.flatnonzero(scored)])
        assert metrics[variant]["mAP"] == pytest.approx(expected, abs=1e-6)


def test_the_python_of_the_readme_gives_the_saved_scores(
    finished: Workspace, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (repository / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(finished.root)
    names: dict[str, Any] = {}
    exec(code, names)
    saved = pd.read_parquet("outputs/evaluation/predictions.parquet").query("split == 'test' and variant == 'capnet'")
    expected = np.stack(saved.set_index("image_id").loc[names["test"]["image_id"], "scores"].tolist())
    np.testing.assert_allclose(names["scores"], expected, atol=1e-6)


def test_thresholds_come_from_out_of_fold_scores(finished: Workspace) -> None:
    folder = finished.root / "outputs"
    thresholds = json.loads((folder / "evaluation" / "thresholds.json").read_text())
    assert thresholds["source"] == "out_of_fold"
    assert [item["name"] for item in thresholds["classes"]] == read_classes(folder / "split" / "classes.json").names
    folds = read_predictions(folder / "model" / "out_of_fold.parquet")
    split = read_split(folder / "split" / "split.parquet")
    assert sorted(folds["image_id"]) == sorted(split.loc[split["split"] == "train", "image_id"]), (
        "each training picture is scored once, by a model that has not seen it"
    )


def test_the_last_epoch_is_kept_without_validation_rows(finished: Workspace) -> None:
    config = json.loads((finished.root / "outputs" / "model" / "config.json").read_text())
    assert (config["selected_epoch"], config["validation_rows"]) in {(2, 0), (3, 0)}


def test_outputs_name_no_machine_place_or_time(finished: Workspace) -> None:
    places = [str(finished.root).encode(), str(Path.home()).encode() + b"/"]
    machine_or_time = re.compile(rb"\b%s\b|20\d\d-\d\d-\d\d[T ]\d\d:\d\d" % re.escape(socket.gethostname()).encode())
    for path in outputs(finished):
        content, name = path.read_bytes(), path.relative_to(finished.root)
        assert not [workspace for workspace in places if workspace in content], f"{name} holds a place of this machine"
        if path.suffix not in {".safetensors", ".parquet"}:  # in raw numbers a short host name turns up by chance
            assert not machine_or_time.search(content), f"{name} holds {machine_or_time.search(content)}"


def test_the_report_needs_no_network_and_shows_no_picture(finished: Workspace) -> None:
    text = (finished.root / "outputs" / "evaluation" / "report.html").read_text()
    assert len(text.encode()) < 2e6
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//|@import|url\(\s*["']?https?:""", text)
    assert "data:image/jpeg" not in text, "thumbnails are off for one's own data"
    for name in ("lemon", "strawberry", "broccoli", "blueberry"):
        assert name in text


def test_corrections_of_a_review_are_in_the_next_ingest(finished: Workspace, tmp_path: Path) -> None:
    output = finished.capnet("review", "--out", str(tmp_path / "review"), "--most", "6")
    rows = list(csv.DictReader((tmp_path / "review" / "corrections.csv").open()))
    assert output.startswith(f"review: {len(rows)} labels to look at, 0 corrected before")
    assert {row["split"] for row in rows} == {"train"}, "test images only where they are asked for"
    page = (tmp_path / "review" / "review.html").read_text()
    assert page.count("data:image/jpeg;base64,") == page.count("<fieldset") == len(rows) > 0

    (tmp_path / "next").mkdir()
    workspace = small_workspace(tmp_path / "next")
    workspace.capnet("ingest")
    before = read_manifest(workspace.root / "outputs" / "manifest" / "manifest.parquet")
    names = read_classes(workspace.root / "outputs" / "manifest" / "classes.json").names
    for row in rows:
        row["label"] = "no" if row["given"] == "yes" else "yes"
    with (workspace.root / "data" / "corrections.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    assert f"corrected {len(rows)}" in workspace.capnet("ingest")
    after = read_manifest(workspace.root / "outputs" / "manifest" / "manifest.parquet")
    expected = {path: set(labels) for path, labels in zip(before["path"], before["labels"], strict=True)}
    for row in rows:
        expected[row["path"]] ^= {names.index(row["class"])}
    assert {path: set(labels) for path, labels in zip(after["path"], after["labels"], strict=True)} == expected


def test_register_is_idempotent(finished: Workspace, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    workspace = Workspace(tmp_path)
    for name in ("data", "outputs"):
        shutil.copytree(finished.root / name, tmp_path / name)
    shutil.copy(finished.root / "params.yaml", tmp_path)
    workspace.capnet("register")
    before = (tmp_path / "outputs" / "registration.json").read_bytes()
    workspace.capnet("register")
    workspace.capnet("register", "--check")
    assert (tmp_path / "outputs" / "registration.json").read_bytes() == before
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (model,) = client.search_registered_models()
    assert len(client.search_model_versions(f"name='{model.name}'")) == 1
    assert int(client.get_model_version_by_alias(model.name, "challenger").version) == 1


def test_check_registers_again_where_the_store_is_new(finished: Workspace, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    workspace = Workspace(tmp_path)
    shutil.copytree(finished.root / "outputs", tmp_path / "outputs")
    shutil.copy(finished.root / "params.yaml", tmp_path)
    workspace.capnet("register", "--check")
    (model,) = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").search_registered_models()
    assert "challenger" in model.aliases


def test_labels_that_are_renamed_later_are_a_contract_error(finished: Workspace, tmp_path: Path) -> None:
    shutil.copytree(finished.root, tmp_path / "copy")
    workspace = Workspace(tmp_path / "copy")
    labels = (workspace.root / "data" / "labels.csv").read_text()
    (workspace.root / "data" / "labels.csv").write_text(labels.replace("lemon", "apple"))
    workspace.stages(last="split")
    refuse(workspace, "train", code=4, words=("other classes",))


def test_summary_names_the_variants_and_the_report(finished: Workspace) -> None:
    text = finished.capnet("summary")
    for word in ("capnet", "zero_shot", "linear_probe", "report.html"):
        assert word in text.replace("-", "_").replace(" ", "_").lower(), text


def test_images_that_people_labelled_later_are_in_the_next_ingest(finished: Workspace, tmp_path: Path) -> None:
    new, page = tmp_path / "july", tmp_path / "label" / "label.html"
    new.mkdir()
    for name in ("003.jpg", "007.jpg", "011.jpg"):
        shutil.copy(finished.root / "data" / "images" / name, new)
    (new / "broken.jpg").write_bytes(b"no image")
    label = ("label", "--model", "outputs", "--out", str(page.parent), "--input")
    output = finished.capnet(*label, str(new))
    assert output.startswith("label: 3 images of 4 without labels, 0 added before")
    assert f"Copy {new} into data, as july/" in output
    assert "does not know" not in output + page.read_text()
    text = page.read_text()
    assert text.count("data:image/jpeg;base64,") == text.count("<a href=") == 3
    assert f'href="{quote(os.path.relpath(new / "003.jpg", page.parent))}"' in text
    scores = pd.read_parquet(page.with_name("label.parquet")).query("fault == ''").set_index("path")
    output = finished.capnet(*label, str(new), "--class", "lemon", "--group-from-folder")
    assert "label: 1 group, 1 new: july" in output
    assert len(re.findall('"group": "july", "path": "july/[^"]*", "split": ""', page.read_text())) == 3
    finished.capnet(*label, str(new), "--class", "lemon", "--most", "2")
    shown = re.findall(r'"path": "july/([^"]*)", "split": "train"', page.read_text())
    assert shown == scores["score lemon"].sort_values(ascending=False).index[:2].tolist()

    (tmp_path / "next").mkdir()
    workspace = small_workspace(tmp_path / "next")
    shutil.copytree(new, workspace.root / "data" / "july")
    (workspace.root / "data" / "added").mkdir()
    (workspace.root / "data" / "added" / "july.csv").write_text("path,labels\njuly/003.jpg,lemon\njuly/007.jpg,\n")
    assert "added 2" in workspace.capnet("ingest")
    assert len(read_manifest(workspace.root / "outputs" / "manifest" / "manifest.parquet")) == 32
    every = ("label", "--model", str(finished.root / "outputs"), "--input", "data")
    assert workspace.capnet(*every).startswith("label: 1 image of 2 without labels, 2 added before")
    assert workspace.root.joinpath("label", "label.html").read_text().count("july/011.jpg") > 0

    labels = (workspace.root / "data" / "labels.csv").read_text()
    (workspace.root / "data" / "labels.csv").write_text(labels.replace("lemon", "apple"))
    (workspace.root / "data" / "added" / "july.csv").write_text("path,labels\njuly/003.jpg,apple\njuly/007.jpg,\n")
    assert "The model does not know apple: type such labels yourself." in workspace.capnet(*every)
    assert "The model does not know apple</strong>" in workspace.root.joinpath("label", "label.html").read_text()
