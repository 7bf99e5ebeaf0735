"""The evaluate stage on made scores, and once in full with a tiny random CLIP."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.special import expit
from sklearn.metrics import average_precision_score, brier_score_loss, f1_score

from capnet.config import Evaluate, Params
from capnet.contracts import (
    Classes,
    label_matrix,
    make_classes,
    read_classes,
    read_evaluation,
    read_json,
    read_predictions,
    sha256_file,
    write_split,
)
from capnet.errors import ContractError, DataError
from capnet.stages import run
from capnet.steps.evaluate import evaluate_scores, write_results

pytestmark = pytest.mark.slow

VIEWS = {"views": 5, "expand": 24, "average": "logits"}
GAIN = {"capnet": 2.5, "single_view": 2.2, "zero_shot": 1.0, "zero_shot_single_view": 0.9}
FAST = Evaluate(bootstrap=100)


@dataclass
class Scored:
    scores: dict[str, np.ndarray]
    features: np.ndarray


@dataclass
class Case:
    """A split table with scores for each side, in the order of its rows."""

    table: pd.DataFrame
    classes: Classes
    val: Scored | None
    test: Scored
    train_features: np.ndarray

    def evaluate(self, config: Evaluate = FAST, out_of_fold: pd.DataFrame | None = None) -> dict[str, Any]:
        return evaluate_scores(
            self.table, self.classes, self.val, self.test, self.train_features, config, out_of_fold, VIEWS
        )

    def labels(self, side: str) -> np.ndarray:
        return label_matrix(self.table[self.table["split"] == side]["labels"], len(self.classes))

    def known(self, side: str) -> np.ndarray:
        return ~label_matrix(self.table[self.table["split"] == side]["unknown"], len(self.classes))


def make_case(
    n_classes: int = 6,
    sizes: tuple[int, int, int] = (60, 40, 80),
    *,
    unknown: float = 0.0,
    slices: tuple[str | None, ...] = (None,),
    names: list[str] | None = None,
    buckets: tuple[int, int] = (15, 6),
    seed: int = 0,
) -> Case:
    rng = np.random.default_rng(seed)
    total = sum(sizes)
    labels = rng.random((total, n_classes)) < np.geomspace(0.4, 0.06, n_classes)
    unknowns = rng.random(labels.shape) < unknown
    side = np.array([name for name, size in zip(("train", "val", "test"), sizes, strict=True) for _ in range(size)])
    order = rng.permutation(total)  # sides are mixed in the table
    side = side[order]
    table = pd.DataFrame(
        {
            "image_id": [f"p{row:05d}" for row in range(total)],
            "path": [f"images/p{row:05d}.jpg" for row in range(total)],
            "labels": [np.flatnonzero(row) for row in labels & ~unknowns],
            "unknown": [np.flatnonzero(row) for row in unknowns],
            "group": None,
            "slice": [slices[row % len(slices)] for row in range(total)],
            "split": side,
        }
    )
    train = labels[side == "train"] & ~unknowns[side == "train"]
    classes = make_classes(names or [f"class {c}" for c in range(n_classes)]).with_counts(
        train.sum(axis=0).tolist(), buckets
    )
    features = (2 * rng.normal(size=(total, 3, 24)) + (labels @ rng.normal(size=(n_classes, 24)))[:, None]).astype(
        np.float32
    )
    noise = rng.normal(size=labels.shape)

    def scored(name: str) -> Scored:
        rows = side == name
        return Scored(
            {
                variant: expit(gain * labels[rows] + noise[rows] - 2).astype(np.float32)
                for variant, gain in GAIN.items()
            },
            features[rows],
        )

    return Case(
        table, classes, scored("val") if sizes[1] else None, scored("test"), features[side == "train"].mean(axis=1)
    )


def _stored(found: dict[str, Any], variant: str, side: str) -> np.ndarray:
    frame = found["predictions"]
    return np.stack(frame[(frame["variant"] == variant) & (frame["split"] == side)]["scores"].tolist())


def test_metrics_are_those_of_the_stored_predictions() -> None:
    case = make_case(unknown=0.1)
    found = case.evaluate()
    labels, known = case.labels("test"), case.known("test")
    buckets = np.array([item.bucket for item in case.classes.items])
    assert set(found["predictions"]["variant"]) == {*GAIN, "linear_probe"}
    for variant in (*GAIN, "linear_probe"):
        scores = _stored(found, variant, "test")
        columns = [(labels[known[:, c], c], scores[known[:, c], c]) for c in range(6)]
        ap = np.array([average_precision_score(*pair) for pair in columns])
        values = found["evaluation"][variant]
        assert values["mAP"] == pytest.approx(ap.mean(), abs=1e-9)
        for bucket in ("head", "medium", "tail"):
            assert values[bucket] == pytest.approx(ap[buckets == bucket].mean(), abs=1e-9)
        assert values["CF1"] == pytest.approx(
            np.mean([f1_score(y, s >= 0.5, zero_division=0) for y, s in columns]), abs=1e-9
        )
        assert values["OF1"] == pytest.approx(f1_score(labels[known], scores[known] >= 0.5), abs=1e-9)
        for name in ("mAP", "head", "tail", "CF1", "OF1", "CF1_chosen", "OF1_chosen"):
            assert 0 <= values[f"{name}_low"] <= values[name] <= values[f"{name}_high"] <= 1
        assert 0.02 < values["mAP_high"] - values["mAP_low"] < 0.4
    cuts = np.array([item["threshold"] for item in found["thresholds"]["classes"]], dtype=np.float32)
    given = _stored(found, "capnet", "test") >= cuts
    assert found["evaluation"]["capnet"]["OF1_chosen"] == pytest.approx(f1_score(labels[known], given[known]), abs=1e-9)
    difference = found["evaluation"]["differences"]["capnet-linear_probe"]
    assert difference["mAP"] == pytest.approx(
        found["evaluation"]["capnet"]["mAP"] - found["evaluation"]["linear_probe"]["mAP"], abs=1e-9
    )
    assert difference["mAP_low"] < difference["mAP"] < difference["mAP_high"]


def test_scores_stay_with_their_pictures() -> None:
    case = make_case()
    frame = case.evaluate()["predictions"]
    for side, scored in (("val", case.val), ("test", case.test)):
        assert scored is not None
        rows = frame[(frame["variant"] == "capnet") & (frame["split"] == side)]
        assert rows["image_id"].tolist() == case.table[case.table["split"] == side]["image_id"].tolist()
        np.testing.assert_array_equal(np.stack(rows["scores"].tolist()), scored.scores["capnet"])


def test_per_class_table_is_sorted_and_right() -> None:
    case = make_case(unknown=0.1, names=["plain", "nan", 'quo"te', "com,ma", "é", "None"])
    found = case.evaluate()
    frame = found["per_class"]
    assert frame["train_count"].tolist() == sorted(case.classes.train_counts.tolist(), reverse=True)
    labels, known, scores = case.labels("test"), case.known("test"), _stored(found, "capnet", "test")
    for row in frame.to_dict("records"):
        c = case.classes.names.index(row["class"])
        y, s = labels[known[:, c], c], scores[known[:, c], c]
        assert row["positives"] == y.sum()
        assert row["ap"] == pytest.approx(average_precision_score(y, s), abs=1e-9)
        assert row["f1"] == pytest.approx(f1_score(y, s >= np.float32(row["threshold"]), zero_division=0), abs=1e-9)
        assert np.isfinite(row["ap_low"]) == (y.sum() >= 10)
        assert row["threshold"] == pytest.approx(found["thresholds"]["classes"][c]["threshold"], abs=1e-9)
        assert row["borrowed"] == found["thresholds"]["classes"][c]["borrowed"]


def test_written_files_are_equal_for_equal_input_and_read_back(tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        write_results(
            folder, make_case(slices=("x", "y"), names=["plain", "nan", 'quo"te', "com,ma", "é", "None"]).evaluate()
        )
    names = sorted(path.name for path in folders[0].iterdir())
    assert names == [
        "evaluation.json",
        "metrics.json",
        "per_class.csv",
        "predictions.parquet",
        "thresholds.json",
    ]
    for name in names:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes(), name
    with open(folders[0] / "per_class.csv", newline="", encoding="utf-8") as file:
        rows = {row["class"]: row for row in csv.DictReader(file)}
    assert set(rows) == {"plain", "nan", 'quo"te', "com,ma", "é", "None"}
    chosen = {item["name"]: item["threshold"] for item in read_json(folders[0] / "thresholds.json")["classes"]}
    assert all(np.float32(row["threshold"]) == np.float32(chosen[name]) for name, row in rows.items())
    assert len(read_predictions(folders[0] / "predictions.parquet")) == 5 * (40 + 80)


def test_slices_are_measured_apart_and_only_where_there_are_several() -> None:
    case = make_case(sizes=(60, 40, 120), slices=("known", "unseen", None))
    found = case.evaluate()
    assert list(found["evaluation"]["slices"]) == ["known", "no slice", "unseen"]
    test = case.table[case.table["split"] == "test"].reset_index(drop=True)
    rows = (test["slice"] == "unseen").to_numpy()
    labels, scores = case.labels("test")[rows], _stored(found, "zero_shot", "test")[rows]
    ap = [average_precision_score(labels[:, c], scores[:, c]) for c in range(6) if labels[:, c].any()]
    assert found["evaluation"]["slices"]["unseen"]["zero_shot"]["mAP"] == pytest.approx(np.mean(ap), abs=1e-9)
    info = found["evaluation"]["slice_info"]["unseen"]
    assert info["test_rows"] == rows.sum()
    assert "mAP_low" in info["differences"]["capnet-zero_shot"]
    assert make_case(slices=("only",)).evaluate()["evaluation"]["slices"] == {}


def test_a_slice_without_positives_has_its_rows_counted_and_no_measures() -> None:
    case = make_case(slices=("a", "b"))
    blank = case.table["slice"] == "b"
    case.table["labels"] = [
        np.array([], dtype=int) if b else labels for b, labels in zip(blank, case.table["labels"], strict=True)
    ]
    found = case.evaluate()["evaluation"]
    assert list(found["slices"]) == ["a"]
    assert found["slice_info"]["b"]["left_out"] == case.classes.names


def test_groups_widen_the_intervals() -> None:
    case = make_case()
    alone = case.evaluate()["evaluation"]
    assert alone["bootstrap"] == {"draws": 100, "seed": 0, "unit": "picture", "units": 80}
    case.table["group"] = [f"patient {row // 40}" for row in range(len(case.table))]
    together = case.evaluate()["evaluation"]
    assert together["bootstrap"]["unit"] == "group"
    assert together["capnet"]["mAP"] == alone["capnet"]["mAP"]
    assert together["capnet"]["mAP_low"] != alone["capnet"]["mAP_low"]


def test_classes_without_test_positives_are_named_and_in_no_mean() -> None:
    case = make_case()
    test = case.table["split"] == "test"
    case.table["labels"] = [
        labels[labels != 2] if t else labels for t, labels in zip(test, case.table["labels"], strict=True)
    ]
    found = case.evaluate()
    assert found["evaluation"]["left_out"] == ["class 2"]
    row = found["per_class"].set_index("class").loc["class 2"]
    assert np.isnan(row["ap"])
    assert np.isnan(row["f1"])
    assert found["evaluation"]["capnet"]["mAP"] == pytest.approx(found["per_class"]["ap"].mean(), abs=1e-9)


def test_unknown_test_entries_have_no_effect() -> None:
    case = make_case(unknown=0.2)
    before = case.evaluate()
    for side, scored in (("test", case.test), ("val", case.val)):
        assert scored is not None
        for scores in scored.scores.values():
            scores[~case.known(side)] = 0.987
    case.table["labels"] = [
        np.union1d(labels, unknown) for labels, unknown in zip(case.table["labels"], case.table["unknown"], strict=True)
    ]
    after = case.evaluate()
    for name in ("capnet", "zero_shot", "linear_probe", "differences", "threshold"):
        assert json.dumps(before["evaluation"][name]) == json.dumps(after["evaluation"][name])


def test_calibration_is_measured_on_the_test_rows() -> None:
    case = make_case(unknown=0.1, sizes=(60, 300, 300))
    found = case.evaluate()
    labels, known, scores = case.labels("test"), case.known("test"), _stored(found, "capnet", "test")
    buckets = found["evaluation"]["calibration"]["buckets"]
    assert list(buckets) == ["all", "head", "medium", "tail"]
    assert buckets["all"]["brier_raw"] == pytest.approx(
        brier_score_loss(labels[known], scores[known].astype(float)), abs=1e-9
    )
    assert buckets["all"]["brier_calibrated"] < buckets["all"]["brier_raw"] - 0.005
    fitted = found["thresholds"]["calibration"]
    logits = np.log(scores.astype(float) / (1 - scores.astype(float)))
    probabilities = expit(logits / fitted["temperature"] + np.array(fitted["shift"]))
    assert buckets["all"]["brier_calibrated"] == pytest.approx(
        brier_score_loss(labels[known], probabilities[known]), abs=1e-6
    )
    assert sum(item["count"] for item in buckets["tail"]["calibrated"]) == buckets["tail"]["entries"]


def _out_of_fold(case: Case) -> pd.DataFrame:
    train = case.table[case.table["split"] == "train"]
    scores = expit(
        2.5 * case.labels("train") + np.random.default_rng(1).normal(size=case.labels("train").shape) - 2
    ).astype(np.float32)
    return pd.DataFrame(
        {"image_id": train["image_id"], "split": "train", "slice": None, "variant": "capnet", "scores": list(scores)}
    ).iloc[::-1]


def test_without_validation_rows_thresholds_come_from_out_of_fold_scores() -> None:
    case = make_case(sizes=(80, 0, 60))
    held_out = _out_of_fold(case)
    found = case.evaluate(out_of_fold=held_out)
    assert found["thresholds"]["source"] == "out_of_fold"
    assert found["thresholds"]["classes"][0]["positives"] == case.labels("train")[:, 0].sum()
    scores = np.stack(held_out.iloc[::-1]["scores"].tolist())
    cut = np.float32(found["thresholds"]["classes"][0]["threshold"])
    best = max(f1_score(case.labels("train")[:, 0], scores[:, 0] >= value) for value in scores[:, 0])
    assert f1_score(case.labels("train")[:, 0], scores[:, 0] >= cut) == pytest.approx(best)
    has = {variant for variant in (*GAIN, "linear_probe") if "CF1_chosen" in found["evaluation"][variant]}
    assert has == {"capnet", "linear_probe"}
    assert found["evaluation"]["probe"]["chosen_on"] == "folds"
    assert set(found["predictions"]["split"]) == {"test"}


def test_without_any_rows_to_choose_on_the_thresholds_are_one_half_and_say_so() -> None:
    found = make_case(sizes=(80, 0, 60)).evaluate()
    assert found["thresholds"]["source"] == found["evaluation"]["threshold"]["source"] == "none"
    assert {item["threshold"] for item in found["thresholds"]["classes"]} == {0.5}
    assert "CF1_chosen" not in found["evaluation"]["capnet"]
    assert "calibration" not in found["evaluation"]


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
    found = case.evaluate(out_of_fold=held_out)
    assert found["thresholds"] == before["thresholds"]
    assert found["evaluation"]["calibration"] == before["evaluation"]["calibration"]
    predictions = found["predictions"]
    predictions = predictions[predictions["split"] == "val"].set_index("variant")["scores"]
    assert set(predictions.index) == {"capnet", "zero_shot", "zero_shot_single_view", "linear_probe"}
    for name, scores in honest.items():
        np.testing.assert_array_equal(np.stack(predictions.loc[name]), scores)
    old = before["predictions"]
    old = old[(old["split"] == "val") & (old["variant"] == "linear_probe")]["scores"]
    np.testing.assert_array_equal(np.stack(predictions.loc["linear_probe"]), np.stack(old))
    assert found["evaluation"]["probe"]["train_rows"] == before["evaluation"]["probe"]["train_rows"] + len(val)
    assert found["evaluation"]["linear_probe"]["mAP"] != before["evaluation"]["linear_probe"]["mAP"]
    with pytest.raises(ContractError, match="39 out-of-fold scores for 40 validation rows"):
        case.evaluate(out_of_fold=held_out.iloc[1:])


def test_out_of_fold_scores_of_training_and_validation_rows_choose_together() -> None:
    case = make_case()
    rows = [case.table[case.table["split"] == part] for part in ("train", "val")]
    labels = np.concatenate([case.labels("train"), case.labels("val")])
    scores = expit(2 * labels + np.random.default_rng(2).normal(size=labels.shape) - 1.5).astype(np.float32)
    held_out = pd.concat(rows)[["image_id", "slice", "split"]].assign(variant="capnet", scores=list(scores))
    found = case.evaluate(out_of_fold=held_out.iloc[::-1])
    assert found["thresholds"]["source"] == "out_of_fold"
    assert [item["positives"] for item in found["thresholds"]["classes"]] == labels.sum(axis=0).tolist()
    cut = np.float32(found["thresholds"]["classes"][0]["threshold"])
    best = max(f1_score(labels[:, 0], scores[:, 0] >= value) for value in scores[:, 0])
    assert f1_score(labels[:, 0], scores[:, 0] >= cut) == pytest.approx(best)
    predictions = found["predictions"]
    served = predictions[(predictions["split"] == "val") & (predictions["variant"] == "capnet")]["scores"]
    np.testing.assert_array_equal(np.stack(served), scores[-len(rows[1]) :])
    assert {"CF1_chosen"} <= set(found["evaluation"]["zero_shot"]), "validation rows choose for what is not trained"
    with pytest.raises(ContractError, match="99 out-of-fold scores for 100 training and validation rows"):
        case.evaluate(out_of_fold=held_out.iloc[1:])


def test_bad_scores_name_every_picture() -> None:
    case = make_case()
    case.test.scores["capnet"][3, 2] = np.nan
    case.test.scores["zero_shot"][5, 0] = 1.5
    with pytest.raises(DataError) as error:
        case.evaluate()
    ids = case.table[case.table["split"] == "test"]["image_id"].tolist()
    assert [ids[row] in str(error.value) for row in (3, 5)] == [True, True]
    assert "nan" in str(error.value)
    assert len(error.value.problems) == 2


def test_scores_of_another_shape_are_refused() -> None:
    case = make_case()
    case.test.scores["capnet"] = case.test.scores["capnet"][:, :5]
    with pytest.raises(ContractError, match=r"\(80, 5\)"):
        case.evaluate()


@pytest.mark.parametrize(
    ("unknown", "what", "todo"),
    [
        (range(6), "none of the 80 test pictures has a known label", "give the test pictures their labels"),
        ((), "no class has a positive among the 80 test pictures", "that show a class"),
        (range(5), "no class has a positive among the 80 test pictures", "that show a class"),
    ],
)
def test_a_test_side_without_a_positive_is_refused(unknown: Iterable[int], what: str, todo: str) -> None:
    """Blank pictures are known to be so; only where every label is unknown are labels missing."""
    case = make_case()
    in_test = case.table["split"] == "test"
    for name, content in (("labels", ()), ("unknown", unknown)):
        case.table[name] = [
            np.array(list(content), dtype=int) if test else old
            for test, old in zip(in_test, case.table[name], strict=True)
        ]
    with pytest.raises(DataError, match=what) as caught:
        case.evaluate()
    assert todo in caught.value.problems[0].todo


def test_no_test_rows_are_refused() -> None:
    case = make_case(sizes=(60, 40, 0))
    with pytest.raises(DataError, match="there are no test rows"):
        case.evaluate()


def test_an_empty_bucket_is_left_out(tmp_path: Path) -> None:
    found = make_case(buckets=(1000, 1)).evaluate()
    assert not {"head", "tail"} & set(found["evaluation"]["capnet"])
    assert found["evaluation"]["capnet"]["medium"] == found["evaluation"]["capnet"]["mAP"]
    assert list(found["evaluation"]["calibration"]["buckets"]) == ["all", "medium"]
    write_results(tmp_path, found)  # refuses NaN


def test_the_probe_can_be_left_out() -> None:
    found = make_case().evaluate(Evaluate.model_validate({"bootstrap": 100, "probe": {"enabled": False}}))
    assert "linear_probe" not in found["evaluation"]
    assert "capnet-linear_probe" not in found["evaluation"]["differences"]
    assert found["per_class"]["ap_linear_probe"].isna().all()


def test_three_classes(tmp_path: Path) -> None:
    write_results(tmp_path, make_case(3, (20, 6, 9)).evaluate())


def test_a_thousand_classes(tmp_path: Path) -> None:
    case = make_case(1000, (40, 30, 60), seed=3)
    probe = {"c": [1.0]}
    found = case.evaluate(Evaluate.model_validate({"bootstrap": 100, "probe": probe}))
    write_results(tmp_path, found)
    assert len(found["thresholds"]["classes"]) == 1000


@pytest.mark.parametrize("objective", ["recall>=0.9", "precision>=0.8"])
def test_other_objectives(objective: str) -> None:
    config = Evaluate.model_validate({"bootstrap": 100, "threshold": {"objective": objective}})
    case = make_case(sizes=(60, 200, 80))
    found = case.evaluate(config)["thresholds"]
    assert found["objective"] == objective
    measure, wanted = objective.split(">=")
    own = [item for item in found["classes"] if not item["borrowed"] and item["reached"]]
    assert len(own) >= 3
    assert all(item[measure] >= float(wanted) - 1e-9 for item in own)


def test_critical_classes_have_an_objective_of_their_own() -> None:
    case = make_case(sizes=(60, 200, 80))
    items = tuple(replace(item, critical=number % 2 == 0) for number, item in enumerate(case.classes.items))
    case = replace(case, classes=replace(case.classes, items=items))
    critical = {item.name for item in items if item.critical}
    settings = {"objective": "precision>=0.8", "critical_objective": "recall>=0.9"}
    found = case.evaluate(Evaluate.model_validate({"bootstrap": 100, "threshold": settings}))["thresholds"]
    assert {name: found[name] for name in settings} == settings
    alone = {
        wanted: case.evaluate(Evaluate.model_validate({"bootstrap": 100, "threshold": {"objective": wanted}}))
        for wanted in settings.values()
    }
    for number, item in enumerate(found["classes"]):
        wanted = settings["critical_objective" if item["name"] in critical else "objective"]
        if not item["borrowed"]:
            assert item == alone[wanted]["thresholds"]["classes"][number]


def test_the_whole_stage_with_a_tiny_model(
    make_outputs: Callable[..., dict[str, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPNET_STATE", str(tmp_path / "state"))
    paths = make_outputs(tmp_path / "outputs")
    classes = read_classes(paths["split"] / "classes.json")
    data, rng, rows = tmp_path / "data", np.random.default_rng(0), []
    (data / "images").mkdir(parents=True)
    for number in range(36):
        path = data / "images" / f"{number}.png"
        Image.fromarray(rng.integers(0, 255, (44, 52, 3), dtype=np.uint8)).save(path)
        side = ("train", "val", "test")[number % 3]
        labels = sorted({number % 4, (number // 3) % 4})
        content = {
            "image_id": str(number),
            "path": f"images/{number}.png",
            "labels": labels,
            "unknown": [],
            "width": 52,
            "height": 44,
        }
        rows.append(
            content
            | {
                "sha256": sha256_file(path),
                "group": None,
                "slice": "ab"[number // 18],
                "given_split": None,
                "split": side,
            }
        )
    write_split(paths["split"] / "split.parquet", pd.DataFrame(rows))

    params = Params.model_validate({"evaluate": {"bootstrap": 100}, "runtime": {"device": "cpu", "threads": 1}})
    inputs = {"split": paths["split"], "model": paths["model"], "data": data}
    first, second = tmp_path / "first", tmp_path / "second"
    metrics = run("evaluate", params, inputs, {"evaluation": first})
    run("evaluate", params, inputs, {"evaluation": second})
    names = {path.name for path in first.iterdir()}
    assert names == {
        "evaluation.json",
        "metrics.json",
        "per_class.csv",
        "predictions.parquet",
        "thresholds.json",
        "report.html",
    }
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    content = read_evaluation(first)
    assert metrics["mAP"] == content["capnet"]["mAP"]
    assert {"zero_shot_mAP", "linear_probe_mAP"} <= set(metrics)
    assert set(content["slices"]) == {"a", "b"}
    assert read_json(first / "thresholds.json")["class_fingerprint"] == classes.fingerprint
    assert read_json(first / "thresholds.json")["views"] == read_json(paths["model"] / "config.json")["tte"]
    assert "<html" in (first / "report.html").read_text().lower()
    assert str(tmp_path) not in "".join((first / name).read_text() for name in names if not name.endswith(".parquet"))


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
