"""Stages graph and train on a few drawn pictures: what they write, and that ViT-B-16 and RN50 run on a CPU."""

import hashlib
import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from sklearn.metrics import average_precision_score

from capnet.config import parse
from capnet.contracts import (
    label_matrix,
    make_classes,
    read_graph,
    read_predictions,
    read_tensors,
    unit_codes,
    write_classes,
    write_manifest,
    write_split,
)
from capnet.errors import CapnetError, ConfigError, ContractError, DataError
from capnet.evaluation.tte import Scorer
from capnet.stages import run
from capnet.steps import train as train_stage
from capnet.training.out_of_fold import stratified_folds

pytestmark = pytest.mark.slow

NAMES = ["red square", "green square", "blue square"]
COLOURS = [(220, 30, 30), (30, 200, 40), (40, 60, 220)]


@pytest.fixture
def made(tmp_path, monkeypatch):
    """32 images with squares of up to three colours, split 20 / 6 / 6, under tmp_path."""
    monkeypatch.setenv("CAPNET_STATE", str(tmp_path / "state"))
    rng = np.random.default_rng(0)
    rows = []
    for number in range(32):
        labels = np.flatnonzero(rng.random(3) < 0.5)
        pixels = np.full((48, 60, 3), 128, dtype=np.uint8)
        for c in labels:
            x, y = rng.integers(0, 30), rng.integers(0, 20)
            pixels[y : y + 24, x : x + 24] = COLOURS[c]
        path = f"{number}.png"
        (tmp_path / "data").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "data" / path)
        sha256 = hashlib.sha256((tmp_path / "data" / path).read_bytes()).hexdigest()
        split = "train" if number < 20 else "val" if number < 26 else "test"
        rows.append(
            {
                "image_id": str(number),
                "path": path,
                "labels": labels,
                "unknown": [0] if number % 7 == 0 and 0 not in labels else [],
                "width": 60,
                "height": 48,
            }
        )
        rows[-1] |= {"sha256": sha256, "group": None, "slice": None, "given_split": None, "split": split}
    return tmp_path, pd.DataFrame(rows)


def write_inputs(folder, frame, names=NAMES):
    labels = label_matrix(frame["labels"], len(names))[(frame["split"] == "train").to_numpy()]
    (folder / "split").mkdir(exist_ok=True)
    write_classes(
        folder / "split" / "classes.json", make_classes(names).with_counts(labels.sum(axis=0).tolist(), (10, 5))
    )
    write_split(folder / "split" / "split.parquet", frame)
    (folder / "validation").mkdir(exist_ok=True)


def run_both(folder, backbone, **train):
    settings = {
        "backbone": {"name": backbone, "pretrained": "random"},
        "tte": {"expand": 8},
        "runtime": {"threads": 1, "precision": "fp32"},
        "train": {"epochs": 1, "batch_size": 16, "folds": 2, **train},
    }
    params = parse(settings)
    inputs = {"split": folder / "split", "validation": folder / "validation"}
    run("graph", params, inputs, {"graph": folder / "graph"})
    return params, run(
        "train", params, {**inputs, "graph": folder / "graph", "data": folder / "data"}, {"model": folder / "model"}
    )


@pytest.fixture
def tiny_backbone(tmp_path):
    from tests.unit.model import tiny

    tiny.register("tiny-clip", tmp_path / "configs")
    return "tiny-clip"


def test_validation_rows_without_a_positive_are_refused_before_an_epoch_is_trained(made, tiny_backbone, monkeypatch):
    folder, frame = made
    frame["labels"] = [
        [] if part == "val" else labels for part, labels in zip(frame["split"], frame["labels"], strict=True)
    ]
    write_inputs(folder, frame)
    steps = []
    monkeypatch.setattr("capnet.training.trainer.multilabel_loss", lambda *arguments: steps.append(1))
    with pytest.raises(DataError, match="no class has a positive validation row"):
        run_both(folder, tiny_backbone)
    assert not steps


@pytest.mark.parametrize("mended", ["a positive", "empty"])
def test_given_validation_rows_without_a_positive_are_refused_with_advice_that_works(mended, made, tiny_backbone):
    folder, frame = made
    frame["given_split"], is_val = frame["split"], frame["split"] == "val"
    frame["labels"] = [[] if val else labels for val, labels in zip(is_val, frame["labels"], strict=True)]
    frame["unknown"] = [[] for _ in range(len(frame))]
    (folder / "manifest").mkdir()
    write_classes(folder / "manifest" / "classes.json", make_classes(NAMES))

    def split_and_train(source="train"):
        write_manifest(folder / "manifest" / "manifest.parquet", frame.drop(columns="split"))
        params = parse({"split": {"validation": {"source": source}}})
        run("split", params, {"manifest": folder / "manifest"}, {"split": folder / "split"})
        (folder / "validation").mkdir(exist_ok=True)
        run_both(folder, tiny_backbone)

    for source in ("train", "none"):  # rows that are given stay
        with pytest.raises(DataError, match="no class has a positive validation row") as caught:
            split_and_train(source)
    assert "give rows with a positive the split 'val' (column split)" in caught.value.problems[0].todo
    if mended == "empty":
        frame.loc[is_val, "given_split"] = None
        split_and_train("none")
    else:
        frame.at[25, "labels"] = [1]
        split_and_train()
    assert (folder / "model" / "model.safetensors").exists()


def test_the_model_folder_is_complete_and_equal_runs_give_equal_bytes(made, tiny_backbone):
    folder, frame = made
    write_inputs(folder, frame)
    run_both(folder, tiny_backbone)
    first = {path.name: path.read_bytes() for path in (folder / "model").iterdir()}
    assert sorted(first) == ["classes.json", "config.json", "graph.safetensors", "history.csv", "model.safetensors"]
    config = json.loads(first["config.json"])
    assert config["validation_rows"] == 6
    assert config["selected_epoch"] == 1
    views = {"views": 5, "size": 0, "expand": 8, "average": "logits", "resize": "short", "decode": "full"}
    assert config["tte"] == views
    assert str(folder).encode() not in b"".join(first.values())
    run_both(folder, tiny_backbone)
    assert {path.name: path.read_bytes() for path in (folder / "model").iterdir()} == first
    assert not any((folder / "state" / "train").iterdir())


@pytest.mark.parametrize(("in_blocks", "many", "warned"), [(True, 20, True), (True, 21, False), (False, 20, False)])
def test_hours_on_a_cpu_are_warned_of(in_blocks, many, warned, made, tiny_backbone, monkeypatch, caplog):
    """20 training images, one epoch."""
    folder, frame = made
    write_inputs(folder, frame)
    monkeypatch.setattr(train_stage, "MANY_ON_A_CPU", many)
    run_both(folder, tiny_backbone, adapter={"in_blocks": in_blocks})
    assert ("train.adapter.in_blocks: false keeps the tower frozen" in caplog.text) == warned


def test_the_served_scores_are_the_mean_logit_over_crops_of_each_picture(made, tiny_backbone):
    folder, frame = made
    write_inputs(folder, frame)
    params, _ = run_both(folder, tiny_backbone)
    rows = frame[frame["split"] == "test"]
    scorer = Scorer(folder / "model", params.runtime)
    scored = scorer.score(rows, folder / "data", "test")
    model = scorer.loaded.model
    for number, (path, sha256) in enumerate(zip(rows["path"], rows["sha256"], strict=True)):
        views = scorer.transform.tensor(folder / "data", path, sha256)
        with torch.no_grad():
            logits = model(views)
        np.testing.assert_allclose(scored.scores["capnet"][number], logits.mean(dim=0).sigmoid(), atol=1e-5)
        np.testing.assert_allclose(scored.scores["single_view"][number], logits[4].sigmoid(), atol=1e-5)
    model.release_towers()
    features = Scorer(folder / "model", params.runtime).frozen(rows, folder / "data", "train").numpy()
    np.testing.assert_array_equal(features, scored.features)
    assert features.shape[:2] == (6, 5)
    assert set(scored.scores) == {"capnet", "single_view", "zero_shot", "zero_shot_single_view"}


def test_without_validation_rows_every_training_row_is_scored_out_of_fold(made, tiny_backbone):
    folder, frame = made
    frame.loc[frame["split"] == "val", "split"] = "train"
    write_inputs(folder, frame)
    run_both(folder, tiny_backbone)
    predictions = read_predictions(folder / "model" / "out_of_fold.parquet")
    assert predictions["image_id"].tolist() == frame.loc[frame["split"] == "train", "image_id"].tolist()
    scores = np.stack(predictions["scores"])
    assert scores.shape == (26, 3)
    assert ((scores > 0) & (scores < 1)).all()
    history = pd.read_csv(folder / "model" / "history.csv")
    assert history["val_mAP"].isna().all()


def test_out_of_fold_scores_can_be_left_out_and_then_there_are_no_thresholds(made, tiny_backbone):
    folder, frame = made
    frame.loc[frame["split"] == "val", "split"] = "train"
    write_inputs(folder, frame)
    run_both(folder, tiny_backbone)
    first = (folder / "model" / "model.safetensors").read_bytes()
    params, _ = run_both(folder, tiny_backbone, out_of_fold=False)
    assert (folder / "model" / "model.safetensors").read_bytes() == first
    assert not (folder / "model" / "out_of_fold.parquet").exists()
    inputs = {name: folder / name for name in ("split", "model", "data")}
    run("evaluate", params, inputs, {"evaluation": folder / "evaluation"})
    thresholds = json.loads((folder / "evaluation" / "thresholds.json").read_text())
    assert thresholds["source"] == "none"


def test_a_blend_without_any_held_out_rows_is_refused(made, tiny_backbone):
    folder, frame = made
    frame.loc[frame["split"] == "val", "split"] = "train"
    write_inputs(folder, frame)
    with pytest.raises(ConfigError, match="no rows to be chosen on"):
        run_both(folder, tiny_backbone, **FULL, out_of_fold=False)
    assert not (folder / "model").exists()


@pytest.mark.parametrize("out_of_fold", [True, False])
@pytest.mark.parametrize("mended", ["no blend", "second group"])
def test_a_blend_on_training_rows_of_one_group_is_refused_with_advice_that_works(
    mended, out_of_fold, made, tiny_backbone
):
    folder, frame = made
    frame.loc[frame["split"] == "val", "split"] = "train"
    frame["group"] = np.where(frame["split"] == "train", "one", "other")
    write_inputs(folder, frame)
    with pytest.raises(ConfigError, match="all training rows are one group") as caught:
        run_both(folder, tiny_backbone, **FULL, out_of_fold=out_of_fold)
    assert not (folder / "model").exists()
    todo = caught.value.problems[0].todo
    assert "train.blend: none" in todo
    assert "groups of their own" in todo
    assert "split.validation.source" not in todo, "no row of a single group can be held out"
    assert ("train.out_of_fold: true" in todo) == (not out_of_fold)
    if mended == "no blend":
        run_both(folder, tiny_backbone, **FULL | {"blend": "none"}, out_of_fold=out_of_fold)
    else:
        frame.loc[:4, "group"] = "two"
        write_inputs(folder, frame)
        run_both(folder, tiny_backbone, **FULL, out_of_fold=True)
    assert (folder / "model" / "model.safetensors").exists()


FULL = {"class_head": {"enabled": True}, "blend": "held_out"}


@pytest.mark.parametrize("validated", [True, False])
def test_what_is_served_is_the_blend_that_ranks_held_out_rows_best(validated, made, tiny_backbone):
    """Members alone, by scikit-learn, are never above it there; evaluate and serving read the same weights."""
    folder, frame = made
    if not validated:
        frame.loc[frame["split"] == "val", "split"] = "train"
    write_inputs(folder, frame)
    params, _ = run_both(folder, tiny_backbone, **FULL, epochs=3)
    first = {path.name: path.read_bytes() for path in (folder / "model").iterdir()}
    chosen = json.loads(first["config.json"])["blend"]
    assert chosen["chosen_on"] == ("val" if validated else "out_of_fold")
    candidates = json.loads(first["blend.json"])["candidates"]
    assert set(chosen["gains"]) == {"capnet", "class_head", "linear_probe", "zero_shot"}
    assert all(item["gain"] >= 0 for item in chosen["gains"].values())
    tensors, _ = read_tensors(folder / "model" / "model.safetensors")
    assert tensors["class_head.weight"].abs().sum() > 0
    assert tensors["linear_probe.weight"].abs().sum() > 0

    held = frame[frame["split"] == ("val" if validated else "train")].reset_index(drop=True)
    labels, unknown = (label_matrix(held[column], 3) for column in ("labels", "unknown"))
    if validated:
        scores = Scorer(folder / "model", params.runtime).score(held, folder / "data", "test").scores["capnet"]
    else:
        scores = np.stack(read_predictions(folder / "model" / "out_of_fold.parquet")["scores"])
    folds = np.zeros(len(held)) if validated else stratified_folds(labels, unit_codes(held["group"]), 2, 0)
    found = [
        np.mean(
            [
                average_precision_score((labels & ~unknown)[rows, c], scores[rows, c])
                for rows in (~unknown[:, c] & (folds == fold) for fold in np.unique(folds))
                if (labels & ~unknown)[rows, c].any()
            ]
        )
        for c in range(3)
    ]
    served = " + ".join(f"{weight:.2f} {name}" for name, weight in chosen["weights"].items())
    assert candidates[served] == pytest.approx(np.mean(found), abs=1e-6)
    assert np.mean(found) >= max(candidates[f"1.00 {name}"] for name in chosen["gains"]) - 1e-6
    run_both(folder, tiny_backbone, **FULL, epochs=3)
    assert {path.name: path.read_bytes() for path in (folder / "model").iterdir()} == first


def test_the_probe_that_training_fitted_is_the_one_that_the_evaluation_would_fit(made, tiny_backbone):
    folder, frame = made
    write_inputs(folder, frame)
    run_both(folder, tiny_backbone, **FULL)
    evaluated = []
    for _ in range(2):
        inputs = {"split": folder / "split", "model": folder / "model", "data": folder / "data"}
        run(
            "evaluate",
            parse({"runtime": {"threads": 1, "precision": "fp32"}}),
            inputs,
            {"evaluation": folder / "evaluation"},
        )
        evaluated.append(json.loads((folder / "evaluation" / "evaluation.json").read_text()))
        (folder / "model" / "probe.safetensors").unlink(missing_ok=True)
    assert evaluated[0]["probe"] == evaluated[1]["probe"]
    assert evaluated[0]["linear_probe"] == pytest.approx(evaluated[1]["linear_probe"], abs=1e-6)
    assert "Served is a mean of logits" in (folder / "evaluation" / "report.html").read_text()


@pytest.mark.parametrize(
    "weights", [{"capnet": 0.5}, {"capnet": 0.5, "oracle": 0.5}, {"capnet": 1.5, "zero_shot": -0.5}, {"capnet": "all"}]
)
def test_weights_that_are_no_weights_of_this_model_are_refused(weights, made, tiny_backbone):
    folder, frame = made
    write_inputs(folder, frame)
    params, _ = run_both(folder, tiny_backbone)
    path = folder / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"blend": {"weights": weights}}))
    with pytest.raises(ContractError, match="blend"):
        Scorer(folder / "model", params.runtime)


def test_folds_spread_labels_and_keep_groups_together():
    rng = np.random.default_rng(2)
    labels = rng.random((300, 5)) < [0.5, 0.3, 0.1, 0.05, 0.02]
    fold = stratified_folds(labels, np.arange(300), 3, 0)
    assert np.bincount(fold).tolist() == [100, 100, 100]
    for column in labels.T:
        counts = [int(column[fold == number].sum()) for number in range(3)]
        assert max(counts) - min(counts) <= 1
    groups = np.repeat(np.arange(60), 5)
    fold = stratified_folds(labels, groups, 3, 0)
    assert all(len(set(fold[groups == group])) == 1 for group in range(60))


def test_train_refuses_a_graph_of_other_prompt_names_or_other_classes(made, tiny_backbone):
    folder, frame = made
    write_inputs(folder, frame)
    params, _ = run_both(folder, tiny_backbone)
    train = {
        "split": folder / "split",
        "validation": folder / "validation",
        "graph": folder / "graph",
        "data": folder / "data",
    }
    write_classes(
        folder / "split" / "classes.json",
        make_classes(NAMES, {"red square": "crimson box"}).with_counts([9, 9, 9], (10, 5)),
    )
    with pytest.raises(ContractError, match="other prompt names"):
        run("train", params, train, {"model": folder / "other"})
    write_classes(folder / "split" / "classes.json", make_classes(NAMES[::-1]).with_counts([9, 9, 9], (10, 5)))
    with pytest.raises(ContractError, match="made for other classes"):
        run("train", params, train, {"model": folder / "other"})
    assert not (folder / "other").exists()


@pytest.mark.parametrize("source", ["text", "cooccurrence", "blend"])
def test_every_graph_source_writes_a_stochastic_matrix_with_its_settings(source, made, tiny_backbone):
    folder, frame = made
    write_inputs(folder, frame)
    params = parse(
        {"backbone": {"name": tiny_backbone, "pretrained": "random"}, "graph": {"source": source, "top_k": 2}}
    )
    run("graph", params, {"split": folder / "split", "validation": folder / "validation"}, {"graph": folder / "graph"})
    graph = read_graph(folder / "graph" / "graph.safetensors", make_classes(NAMES))
    assert torch.allclose(graph.adjacency.sum(dim=1), torch.ones(3))
    assert ((graph.adjacency > 0).sum(dim=1) <= 2).all()
    assert graph.metadata["source"] == source
    with safe_open(folder / "graph" / "graph.safetensors", framework="pt") as file:
        assert set(file.keys()) == {"adjacency", "text_features"}


@pytest.mark.parametrize("case", ["70 % blank pictures", "10 % unknown labels", "1,000 classes"])
def test_odd_label_sets_train_to_finite_scores(case, made, tiny_backbone):
    folder, frame = made
    rng = np.random.default_rng(3)
    names = NAMES
    if case == "70 % blank pictures":
        blank = rng.permutation(32) < 22
        frame["labels"] = [
            np.array([], dtype=int) if empty else labels for empty, labels in zip(blank, frame["labels"], strict=True)
        ]
        frame.at[25, "labels"] = np.array([0, 1, 2])  # the validation rows keep positives
        frame["unknown"] = [[] for _ in range(32)]
    elif case == "10 % unknown labels":
        frame["unknown"] = [
            [c for c in range(3) if c not in labels and rng.random() < 0.2] for labels in frame["labels"]
        ]
    else:
        names = [f"kind {number}" for number in range(1000)]
        frame["labels"] = [np.sort(rng.choice(1000, 5, replace=False)) for _ in range(32)]
        frame["unknown"] = [[] for _ in range(32)]
    write_inputs(folder, frame, names)
    params, metrics = run_both(folder, tiny_backbone, epochs=4)
    assert np.isfinite(metrics["loss"])
    losses = pd.read_csv(folder / "model" / "history.csv")["loss"]
    assert losses.iloc[-1] < losses.iloc[0]
    scored = Scorer(folder / "model", params.runtime).score(frame[frame["split"] == "test"], folder / "data", "test")
    assert all(
        scores.shape == (6, len(names)) and np.isfinite(scores).all() and (scores > 0).all() and (scores < 1).all()
        for scores in scored.scores.values()
    )


def test_the_same_training_is_refused_until_the_first_one_has_ended(made, tiny_backbone, monkeypatch):
    folder, frame = made
    write_inputs(folder, frame)
    features, tried = train_stage._features, []

    def meanwhile(*arguments):
        if not tried:
            tried.append(1)
            with pytest.raises(CapnetError, match="already running"):
                run_both(folder, tiny_backbone)
        return features(*arguments)

    monkeypatch.setattr(train_stage, "_features", meanwhile)
    run_both(folder, tiny_backbone)
    assert (folder / "model" / "model.safetensors").is_file()
    run_both(folder, tiny_backbone)
