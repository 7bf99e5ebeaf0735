"""What the train stage does with held-out rows: folds, scores out of fold, the blend and the probe."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import average_precision_score

from capnet.config import parse
from capnet.contracts import label_matrix, read_predictions, read_tensors, sampling_units
from capnet.data.splits.stratify import stratified_folds
from capnet.errors import ConfigError, ContractError
from capnet.evaluation.tte import Scorer
from capnet.stages import run
from capnet.steps import held_out
from capnet.training.scoring import combine
from tests.unit.steps import small_training
from tests.unit.steps.small_training import FULL, run_both, write_inputs

pytestmark = pytest.mark.slow

made = small_training.made
tiny_backbone = small_training.tiny_backbone


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
    folds = np.zeros(len(held)) if validated else stratified_folds(labels, sampling_units(held), 2, 0)
    result = [
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
    assert candidates[served] == pytest.approx(np.mean(result), abs=1e-6)
    assert np.mean(result) >= max(candidates[f"1.00 {name}"] for name in chosen["gains"]) - 1e-6
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
    assert "What is served averages logits" in (folder / "evaluation" / "report.html").read_text()


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


@pytest.mark.parametrize("average", ["logits", "probabilities"])
def test_a_blend_is_chosen_by_the_average_that_is_served(average, monkeypatch):
    """By the mean of the logits, one of 40 blends would be served below zero-shot where probabilities are averaged."""
    monkeypatch.setattr(held_out, "trains_blocks", lambda *_: False)
    tte = SimpleNamespace(average=average)
    for seed in range(40):
        rng = np.random.default_rng(seed)
        labels = rng.random((40, 4)) < 0.2
        shared = 0.9 * rng.standard_normal(labels.shape)
        logits = {}
        for name, skill, spread in (("capnet", 2.0, 3.0), ("linear_probe", 2.2, 0.0), ("zero_shot", 2.6, 2.0)):
            whole = skill * labels + shared + 0.5 * rng.standard_normal(labels.shape) - 2
            views = whole[:, None] + spread * rng.standard_normal((40, 5, 4))
            logits[name] = torch.from_numpy(views).float()
        of_rows = SimpleNamespace(targets=torch.from_numpy(labels), known=torch.ones(40, 4, dtype=torch.bool))
        trainer = SimpleNamespace(
            labels=lambda _, of_rows=of_rows: of_rows,
            towers=SimpleNamespace(image=None),
            params=SimpleNamespace(tte=tte, train=SimpleNamespace(adapter=None)),
        )
        rows = pd.DataFrame({"group": [""] * 40})

        def mean_ap(weights, logits=logits, labels=labels):
            return average_precision_score(labels, combine(logits, weights, average))

        blend = held_out.HeldOut(rows, None, logits).choose_blend(trainer)
        for name in ("linear_probe", "zero_shot"):
            assert mean_ap(blend.weights) >= mean_ap({name: 1.0}) - 1e-9, (seed, name)
