"""Refit: what validation rows chose, trained again with them, and no choice made on scores of rows that were seen."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from capnet.config import Backbone
from capnet.contracts import label_matrix, read_predictions, read_tensors, sampling_units
from capnet.data.splits.stratify import stratified_folds
from capnet.errors import ConfigError
from capnet.evaluation.tte import Scorer
from capnet.model.backbones import load_towers
from capnet.stages import run
from tests.unit.model import tiny
from tests.unit.steps import small_training
from tests.unit.steps.small_training import FULL, run_both, stop_after, write_inputs

pytestmark = pytest.mark.slow

pictures = small_training.made
ROWS = 26  # training and validation rows of ``made``


@pytest.fixture
def made(pictures):
    """The pictures under names by which validation rows follow the training rows."""
    folder, frame = pictures
    return folder, frame.assign(image_id=[f"{number:02d}" for number in range(len(frame))])


@pytest.fixture(params=["tiny-clip", "tiny-resnet"])
def backbone(request, tmp_path):
    """A tower with adapters in its blocks, and one that stays frozen."""
    tiny.register(request.param, tmp_path / "configs")
    return request.param


def model_of(folder):
    return {path.name: path.read_bytes() for path in (folder / "model").iterdir()}


def tensors_of(folder):
    return read_tensors(folder / "model" / "model.safetensors")[0]


def held_out(folder):
    table = read_predictions(folder / "model" / "out_of_fold.parquet")
    assert set(table["split"]) == {"val"}
    return table["image_id"].tolist(), np.stack(table["scores"])


def evaluated(folder, params):
    inputs = {name: folder / name for name in ("split", "model", "data")}
    run("evaluate", params, inputs, {"evaluation": folder / "evaluation"})
    out = folder / "evaluation"
    return {name: json.loads((out / f"{name}.json").read_text()) for name in ("evaluation", "thresholds")}


def without_validation(frame):
    return frame.assign(split=frame["split"].replace("val", "train"))


@pytest.mark.parametrize("blend", ["none", "held_out"])
def test_the_trained_tensors_are_those_of_a_training_on_all_rows(blend, made, backbone):
    folder, frame = made
    write_inputs(folder, frame)
    run_both(folder, backbone, **{**FULL, "blend": blend}, epochs=2, select="last", refit=True)
    refitted, config = tensors_of(folder), json.loads((folder / "model" / "config.json").read_text())
    history = pd.read_csv(folder / "model" / "history.csv")
    run_both(folder, backbone, **{**FULL, "blend": blend}, epochs=2, select="last")
    before, first = tensors_of(folder), pd.read_csv(folder / "model" / "history.csv")
    assert not (folder / "model" / "out_of_fold.parquet").exists()
    write_inputs(folder, without_validation(frame))
    run_both(folder, backbone, class_head={"enabled": True}, epochs=2, out_of_fold=False)
    expected = tensors_of(folder)
    for (
        name,
        tensor,
    ) in expected.items():  # features of 26 pictures at once differ in the last bit from those of 20 and 6
        torch.testing.assert_close(refitted[name], tensor, rtol=1e-4, atol=1e-5, msg=name)
    assert any((before[name] - tensor).abs().max() > 1e-3 for name, tensor in expected.items())
    pd.testing.assert_frame_equal(history, first)
    assert config["refit_rows"] == ROWS


def test_the_probe_is_scikit_learns_on_all_rows(made, backbone):
    folder, frame = made
    write_inputs(folder, frame)
    params, _ = run_both(folder, backbone, **FULL, prompt={"enabled": False}, refit=True)
    where = {"tiny-clip": "val", "tiny-resnet": "out_of_fold"}[backbone]
    assert json.loads((folder / "model" / "config.json").read_text())["blend"]["chosen_on"] == where
    settings = evaluated(folder, params)["evaluation"]["probe"]
    assert settings["train_rows"] == ROWS
    tensors = tensors_of(folder)
    scorer = Scorer(folder / "model", params.runtime)
    rows = frame[frame["split"] != "test"]
    views = scorer.frozen(rows, folder / "data", "all")[:].double()
    centre = views.mean(dim=(0, 1))
    torch.testing.assert_close(tensors["linear_probe.centre"].double(), centre, rtol=1e-5, atol=1e-6)
    units = views - centre
    features = (units / units.square().sum(dim=-1, keepdim=True).sqrt()).mean(dim=1).numpy()
    logits = features @ tensors["linear_probe.weight"].double().numpy().T + tensors["linear_probe.bias"].numpy()
    for c in range(3):
        known = np.array([c not in unknown for unknown in rows["unknown"]])
        labels = np.array([c in positives for positives in rows["labels"]])[known]
        fitted = LogisticRegression(C=settings["c"], tol=1e-9, max_iter=10000).fit(features[known], labels)
        assert np.corrcoef(logits[:, c], fitted.decision_function(features))[0, 1] > 0.999


@pytest.mark.parametrize("blend", ["none", "held_out"])
def test_thresholds_and_calibration_are_those_of_the_model_that_had_not_seen_the_rows(blend, made, backbone):
    folder, frame = made
    write_inputs(folder, frame)
    settings = {**FULL, "blend": blend, "epochs": 3, "out_of_fold": False}
    params, _ = run_both(folder, backbone, **settings)
    before = evaluated(folder, params)
    scores = read_predictions(folder / "evaluation" / "predictions.parquet")
    params, _ = run_both(folder, backbone, **settings, refit=True)
    after, result = evaluated(folder, params), read_predictions(folder / "evaluation" / "predictions.parquet")
    assert after["thresholds"]["source"] == "val"
    for one, other in zip(before["thresholds"]["classes"], after["thresholds"]["classes"], strict=True):
        assert one == pytest.approx(other, abs=1e-5)
    calibration = [item["thresholds"]["calibration"] for item in (before, after)]
    assert calibration[0]["shift"] == pytest.approx(calibration[1]["shift"], abs=1e-2)

    def of(table, split, variant):
        return np.stack(table[(table["split"] == split) & (table["variant"] == variant)]["scores"])

    for variant in ("capnet", "linear_probe"):
        np.testing.assert_allclose(of(result, "val", variant), of(scores, "val", variant), atol=1e-5)
        assert np.abs(of(result, "test", variant) - of(scores, "test", variant)).max() > 1e-4
    assert "single_view" not in set(result[result["split"] == "val"]["variant"])
    assert f"{ROWS} training and validation pictures" in (folder / "evaluation" / "report.html").read_text()


def test_a_validation_label_reaches_the_weights_but_not_the_scores_that_choices_are_made_on(made, backbone):
    folder, frame = made
    settings = {"class_head": {"enabled": True}, "select": "last", "refit": True, "out_of_fold": False}
    write_inputs(folder, frame)
    run_both(folder, backbone, **settings)
    first, scores = tensors_of(folder), held_out(folder)
    changed = frame.copy()
    changed.at[24, "labels"] = np.setdiff1d(np.arange(3), changed.at[24, "labels"])
    write_inputs(folder, changed)
    run_both(folder, backbone, **settings)
    assert any(not torch.equal(first[name], tensor) for name, tensor in tensors_of(folder).items())
    assert held_out(folder)[0] == scores[0] == [str(number) for number in range(20, 26)]
    np.testing.assert_array_equal(held_out(folder)[1], scores[1])


@pytest.mark.parametrize(
    ("tower", "blend"), [("tiny-resnet", "none"), ("tiny-resnet", "held_out"), ("tiny-clip", "none")]
)
def test_a_frozen_towers_choices_are_made_on_all_rows_scored_by_models_without_their_fold(tower, blend, made, tmp_path):
    """A ViT without adapters in its blocks is as frozen as a ResNet."""
    tiny.register(tower, tmp_path / "configs")
    folder, frame = made
    settings = {**FULL, "blend": blend, "epochs": 2, "select": "last", "prompt": {"enabled": False}}
    settings["adapter"] = {"in_blocks": False}
    write_inputs(folder, frame)
    params, _ = run_both(folder, tower, **settings, refit=True)
    result, results = read_predictions(folder / "model" / "out_of_fold.parquet"), evaluated(folder, params)
    assert "adapter.down_proj.weight" in tensors_of(folder)
    rows = frame[frame["split"] != "test"].reset_index(drop=True)
    assert result["image_id"].tolist() == rows["image_id"].tolist()
    assert result["split"].tolist() == rows["split"].tolist()
    labels, unknown = (label_matrix(rows[column], 3) for column in ("labels", "unknown"))
    assert [item["positives"] for item in results["thresholds"]["classes"]] == (labels & ~unknown).sum(axis=0).tolist()
    assert results["thresholds"]["source"] == results["evaluation"]["threshold"]["source"] == "out_of_fold"
    written = read_predictions(folder / "evaluation" / "predictions.parquet")
    served = written[(written["split"] == "val") & (written["variant"] == "capnet")]["scores"]
    np.testing.assert_array_equal(np.stack(served), np.stack(result["scores"])[result["split"] == "val"])
    if blend == "held_out":
        return
    folds = stratified_folds(labels & ~unknown, sampling_units(rows), 2, 0)
    assert len(np.unique(folds)) == 2
    for fold in np.unique(folds):
        write_inputs(folder, rows.assign(split=np.where(folds == fold, "test", "train")))
        params, _ = run_both(folder, tower, **settings, out_of_fold=False)
        evaluated(folder, params)
        other = read_predictions(folder / "evaluation" / "predictions.parquet")
        scores = np.stack(other[(other["split"] == "test") & (other["variant"] == "capnet")]["scores"])
        np.testing.assert_allclose(np.stack(result["scores"])[folds == fold], scores, rtol=1e-4, atol=1e-5)


def test_with_prompts_the_validation_rows_choose_because_folds_would_take_long(made, tmp_path):
    tiny.register("tiny-resnet", tmp_path / "configs")
    folder, frame = made
    write_inputs(folder, frame)
    run_both(folder, "tiny-resnet", **FULL, refit=True)
    assert set(read_predictions(folder / "model" / "out_of_fold.parquet")["split"]) == {"val"}


def test_no_test_label_and_no_test_picture_reaches_anything(made, backbone):
    folder, frame = made
    write_inputs(folder, frame)
    run_both(folder, backbone, **FULL, refit=True)
    first = model_of(folder)
    changed = frame.copy()
    changed["labels"] = [
        np.setdiff1d(np.arange(3), [*labels, *unknown]) if split == "test" else labels
        for labels, unknown, split in zip(changed["labels"], changed["unknown"], changed["split"], strict=True)
    ]
    for path in changed[changed["split"] == "test"]["path"]:
        (folder / "data" / path).unlink()
    write_inputs(folder, changed)
    run_both(folder, backbone, **FULL, refit=True)
    assert model_of(folder) == first


def test_a_refit_that_was_killed_goes_on_and_ends_with_the_same_bytes(made, backbone, monkeypatch):
    folder, frame = made
    write_inputs(folder, frame)
    settings = {**FULL, "epochs": 3, "select": "last", "refit": True, "batch_size": 8, "prompt": {"enabled": False}}
    run_both(folder, backbone, **settings)
    whole = model_of(folder)
    in_folds = {"tiny-clip": 0, "tiny-resnet": 2 * 3 * 2}[backbone]  # two folds, 3 epochs of 13 rows
    # 3 epochs of 20 rows, those of the folds, then 5 steps on 26 rows
    steps = stop_after(3 * 3 + in_folds + 5, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        run_both(folder, backbone, **settings)
    steps.clear()
    run_both(folder, backbone, **settings)
    assert len(steps) == 3 * 4 - 5
    assert model_of(folder) == whole


def test_without_validation_rows_there_is_nothing_to_refit(made, backbone):
    folder, frame = made
    write_inputs(folder, without_validation(frame))
    run_both(folder, backbone, **FULL)
    first = model_of(folder)
    run_both(folder, backbone, **FULL, refit=True)
    result = model_of(folder)
    assert {name for name in first if first[name] != result[name]} == {"config.json"}
    assert json.loads(result["config.json"])["refit_rows"] == 0


def test_tokens_that_only_the_refit_has_no_room_for_are_refused_before_anything_is_computed(made, tmp_path):
    """9 views of an image: 5 of test time and 4 random ones."""
    folder, frame = made
    tiny.register("tiny-clip", tmp_path / "configs")
    write_inputs(folder, frame)
    towers = load_towers(Backbone(name="tiny-clip", pretrained="random"))
    one = towers.image.tokens(torch.zeros(1, 3, towers.preprocess.size, towers.preprocess.size), 1)
    different = frame["sha256"][frame["split"] == "train"].nunique()
    room = {"feature_gigabytes": 2e-9 * one.numel() * 9 * (different + 0.5)}  # for the training rows alone
    with pytest.raises(ConfigError, match=rf"the tokens of {ROWS} training images take"):
        run_both(folder, "tiny-clip", room, refit=True, adapter={"blocks": 1})
    assert not list((folder / "state").rglob("*.arrow"))
    assert not list((folder / "state").rglob("checkpoint*"))
