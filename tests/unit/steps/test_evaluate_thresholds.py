"""The evaluate stage chooses thresholds: on which rows, for which objective, and what it promises of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit

import capnet.steps.evaluate_scores as evaluate_step
from capnet.config import Evaluate
from capnet.errors import ContractError
from capnet.evaluation.thresholds import Thresholds, choose_thresholds
from tests.unit.steps.made_case import GAIN, Case, make_case

pytestmark = pytest.mark.slow


def _out_of_fold(case: Case) -> pd.DataFrame:
    train = case.table[case.table["split"] == "train"]
    scores = expit(
        2.5 * case.labels("train") + np.random.default_rng(1).normal(size=case.labels("train").shape) - 2
    ).astype(np.float32)
    return pd.DataFrame(
        {"image_id": train["image_id"], "split": "train", "slice": None, "variant": "capnet", "scores": list(scores)}
    ).iloc[::-1]


def _is_best_for_f1(thresholds: dict[str, Any], scores: np.ndarray) -> bool:
    """Whether the first class's cut has the best expected F1 on rows [row, class] by the document's calibration."""
    calibration, known = thresholds["calibration"], scores[:, 0].astype(np.float64)
    probabilities = expit(logit(known) / calibration["temperature"][0] + calibration["shift"][0])
    cuts = [np.float32(thresholds["classes"][0]["threshold"]), *scores[:, 0]]
    marks = [scores[:, 0] >= cut for cut in cuts]
    expected = [2 * probabilities[mark].sum() / (mark.sum() + probabilities.sum()) for mark in marks]
    return bool(expected[0] >= max(expected) - 1e-9)


def test_without_validation_rows_thresholds_come_from_out_of_fold_scores() -> None:
    case = make_case(sizes=(80, 0, 60))
    held_out = _out_of_fold(case)
    results = case.evaluate(out_of_fold=held_out)
    assert results["thresholds"]["source"] == "out_of_fold"
    assert results["thresholds"]["classes"][0]["positives"] == case.labels("train")[:, 0].sum()
    scores = np.stack(held_out.iloc[::-1]["scores"].tolist())
    assert _is_best_for_f1(results["thresholds"], scores)
    has = {variant for variant in (*GAIN, "linear_probe") if "CF1_chosen" in results["evaluation"][variant]}
    assert has == {"capnet", "linear_probe"}
    assert set(results["predictions"]["split"]) == {"test"}


def test_without_any_rows_to_choose_on_the_thresholds_are_one_half_and_say_so() -> None:
    results = make_case(sizes=(80, 0, 60)).evaluate()
    assert results["thresholds"]["source"] == results["evaluation"]["threshold"]["source"] == "none"
    assert {item["threshold"] for item in results["thresholds"]["classes"]} == {0.5}
    assert "CF1_chosen" not in results["evaluation"]["capnet"]
    assert "calibration" not in results["evaluation"]
    (note,) = results["evaluation"]["threshold"]["notes"]
    assert "every class has 0.5" in note, "stage evaluate warns of it"


def test_out_of_fold_scores_of_other_rows_are_refused() -> None:
    case = make_case(sizes=(80, 0, 60))
    with pytest.raises(ContractError, match="79 out-of-fold scores for 80 training rows"):
        case.evaluate(out_of_fold=_out_of_fold(case).iloc[1:])


def test_after_a_refit_no_choice_uses_scores_of_the_refitted_model() -> None:
    """Its own scores of validation rows are perfect here; thresholds come from those of the model before."""
    case = make_case()
    honest = {name: case.val.scores[name].copy() for name in ("capnet", "zero_shot")}
    before = case.evaluate()
    val = case.table[case.table["split"] == "val"]
    held_out = pd.DataFrame(
        {"image_id": val["image_id"], "split": "val", "slice": None, "variant": "capnet"}
        | {"scores": list(honest["capnet"])}
    ).iloc[::-1]
    for name in ("capnet", "single_view"):
        case.val.scores[name] = np.where(case.labels("val"), 0.99, 0.01).astype(np.float32)
    results = case.evaluate(out_of_fold=held_out)
    assert results["thresholds"] == before["thresholds"]
    assert results["evaluation"]["calibration"] == before["evaluation"]["calibration"]
    predictions = results["predictions"]
    predictions = predictions[predictions["split"] == "val"].set_index("variant")["scores"]
    assert set(predictions.index) == {"capnet", "zero_shot", "zero_shot_single_view", "linear_probe"}
    for name, scores in honest.items():
        np.testing.assert_array_equal(np.stack(predictions.loc[name]), scores)
    old = before["predictions"]
    old = old[(old["split"] == "val") & (old["variant"] == "linear_probe")]["scores"]
    np.testing.assert_array_equal(np.stack(predictions.loc["linear_probe"]), np.stack(old))
    assert results["evaluation"]["probe"]["train_rows"] == before["evaluation"]["probe"]["train_rows"] + len(val)
    assert results["evaluation"]["linear_probe"]["mAP"] != before["evaluation"]["linear_probe"]["mAP"]
    with pytest.raises(ContractError, match="39 out-of-fold scores for 40 validation rows"):
        case.evaluate(out_of_fold=held_out.iloc[1:])


def test_thresholds_of_what_is_served_are_chosen_once(monkeypatch: pytest.MonkeyPatch) -> None:
    case = make_case()
    val = case.table[case.table["split"] == "val"]
    held_out = val[["image_id", "split", "slice"]].assign(variant="capnet", scores=list(case.val.scores["capnet"]))
    chosen: list[bytes] = []

    def noted(labels: np.ndarray, known: np.ndarray, scores: np.ndarray, *rest: Any) -> Thresholds:
        chosen.append(np.ascontiguousarray(scores).tobytes())
        return choose_thresholds(labels, known, scores, *rest)

    monkeypatch.setattr("capnet.steps.evaluate_scores.choose_thresholds", noted)
    case.evaluate(out_of_fold=held_out)
    assert len(chosen) == len(set(chosen)) == len({"capnet", "zero_shot", "zero_shot_single_view", "linear_probe"})


def test_out_of_fold_scores_of_training_and_validation_rows_choose_together() -> None:
    case = make_case()
    rows = [case.table[case.table["split"] == part] for part in ("train", "val")]
    labels = np.concatenate([case.labels("train"), case.labels("val")])
    scores = expit(2 * labels + np.random.default_rng(2).normal(size=labels.shape) - 1.5).astype(np.float32)
    held_out = pd.concat(rows)[["image_id", "slice", "split"]].assign(variant="capnet", scores=list(scores))
    results = case.evaluate(out_of_fold=held_out.iloc[::-1])
    assert results["thresholds"]["source"] == "out_of_fold"
    assert [item["positives"] for item in results["thresholds"]["classes"]] == labels.sum(axis=0).tolist()
    assert _is_best_for_f1(results["thresholds"], scores)
    predictions = results["predictions"]
    served = predictions[(predictions["split"] == "val") & (predictions["variant"] == "capnet")]["scores"]
    np.testing.assert_array_equal(np.stack(served), scores[-len(rows[1]) :])
    assert {"CF1_chosen"} <= set(results["evaluation"]["zero_shot"]), "validation rows choose for what is not trained"
    with pytest.raises(ContractError, match="99 out-of-fold scores for 100 training and validation rows"):
        case.evaluate(out_of_fold=held_out.iloc[1:])


@pytest.mark.parametrize("objective", ["recall>=0.9", "precision>=0.8"])
def test_other_objectives(objective: str) -> None:
    config = Evaluate.model_validate({"bootstrap": 100, "threshold": {"objective": objective}})
    case = make_case(sizes=(60, 200, 80))
    results = case.evaluate(config)["thresholds"]
    assert results["objective"] == objective
    measure, target = objective.split(">=")
    own = [item for item in results["classes"] if not item["borrowed"] and item["reached"]]
    assert len(own) >= 3
    assert all(item[measure] >= float(target) - 1e-9 for item in own)


def test_critical_classes_have_an_objective_of_their_own() -> None:
    case = make_case(sizes=(60, 200, 80))
    items = tuple(replace(item, critical=number % 2 == 0) for number, item in enumerate(case.classes.items))
    case = replace(case, classes=replace(case.classes, items=items))
    critical = {item.name for item in items if item.critical}
    settings = {"objective": "precision>=0.8", "critical_objective": "recall>=0.9"}
    results = case.evaluate(Evaluate.model_validate({"bootstrap": 100, "threshold": settings}))["thresholds"]
    assert {name: results[name] for name in settings} == settings
    alone = {
        target: case.evaluate(Evaluate.model_validate({"bootstrap": 100, "threshold": {"objective": target}}))
        for target in settings.values()
    }
    for number, item in enumerate(results["classes"]):
        target = settings["critical_objective" if item["name"] in critical else "objective"]
        assert item.pop("objective", settings["objective"]) == target
        if not item["borrowed"]:
            assert item == alone[target]["thresholds"]["classes"][number]


def test_a_recall_is_promised_for_images_of_other_groups() -> None:
    config = Evaluate.model_validate({"bootstrap": 100, "threshold": {"objective": "recall>=0.8"}})
    case = make_case(sizes=(60, 200, 80))
    alone = case.evaluate(config)["thresholds"]["classes"]
    assert all(item["reached"] for item in alone)
    case.table["group"] = [f"place {row % 3}" for row in range(len(case.table))]
    assert not any(item["reached"] for item in case.evaluate(config)["thresholds"]["classes"]), "of three places"
    case.table["group"] = [f"place {row % 25}" for row in range(len(case.table))]
    of_places = case.evaluate(config)["thresholds"]["classes"]
    assert all(item["reached"] for item in of_places)
    assert of_places[0]["threshold"] < alone[0]["threshold"], "25 places are fewer than its images"
    case.table["group"] = None
    case.table["sha256"] = [f"{row % 3:064x}" for row in range(len(case.table))]
    assert not any(item["reached"] for item in case.evaluate(config)["thresholds"]["classes"]), "of three files"
    case.table["sha256"] = [f"{row:064x}" for row in range(len(case.table))]
    assert case.evaluate(config)["thresholds"]["classes"] == alone


def test_how_far_the_choice_is_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 2,000 classes each variant takes a minute of processor time."""
    shown: list[tuple[str, int]] = []

    def track(items: Any, description: str, total: int) -> Any:
        shown.append((description, total))
        return items

    monkeypatch.setattr(evaluate_step, "track", track)
    results = make_case().evaluate()
    chosen = [name for name in (*GAIN, "linear_probe") if "CF1_chosen" in results["evaluation"][name]]
    assert shown == [("thresholds", len(chosen))]
