"""The evaluate stage on made scores: what it measures and writes, and once in full with a tiny random CLIP."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.special import expit
from sklearn.metrics import average_precision_score, brier_score_loss, f1_score

from capnet.config import Evaluate, Params
from capnet.contracts import read_classes, read_json, read_predictions, sha256_file, tree_hash, write_split
from capnet.contracts.stage_json import read_evaluation
from capnet.stages import run
from capnet.steps.evaluate import write_results
from tests.unit.steps.made_case import GAIN, make_case, stored

pytestmark = pytest.mark.slow


def test_metrics_are_those_of_the_stored_predictions() -> None:
    case = make_case(unknown=0.1)
    results = case.evaluate()
    labels, known = case.labels("test"), case.known("test")
    buckets = np.array(case.classes.buckets)
    assert set(results["predictions"]["variant"]) == {*GAIN, "linear_probe"}
    for variant in (*GAIN, "linear_probe"):
        scores = stored(results, variant, "test")
        columns = [(labels[known[:, c], c], scores[known[:, c], c]) for c in range(6)]
        ap = np.array([average_precision_score(*pair) for pair in columns])
        values = results["evaluation"][variant]
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
    cuts = np.array([item["threshold"] for item in results["thresholds"]["classes"]], dtype=np.float32)
    decided = stored(results, "capnet", "test") >= cuts
    assert results["evaluation"]["capnet"]["OF1_chosen"] == pytest.approx(
        f1_score(labels[known], decided[known]), abs=1e-9
    )
    difference = results["evaluation"]["differences"]["capnet-linear_probe"]
    assert difference["mAP"] == pytest.approx(
        results["evaluation"]["capnet"]["mAP"] - results["evaluation"]["linear_probe"]["mAP"], abs=1e-9
    )
    assert difference["mAP_low"] < difference["mAP"] < difference["mAP_high"]


def test_scores_stay_with_their_pictures() -> None:
    case = make_case()
    frame = case.evaluate()["predictions"]
    for split, scored in (("val", case.val), ("test", case.test)):
        assert scored is not None
        rows = frame[(frame["variant"] == "capnet") & (frame["split"] == split)]
        assert rows["image_id"].tolist() == case.table[case.table["split"] == split]["image_id"].tolist()
        np.testing.assert_array_equal(np.stack(rows["scores"].tolist()), scored.scores["capnet"])


def test_per_class_table_is_sorted_and_right() -> None:
    case = make_case(unknown=0.1, names=["plain", "nan", 'quo"te', "com,ma", "é", "None"])
    results = case.evaluate()
    frame = results["per_class"]
    assert frame["train_count"].tolist() == sorted(case.classes.train_counts.tolist(), reverse=True)
    labels, known, scores = case.labels("test"), case.known("test"), stored(results, "capnet", "test")
    for row in frame.to_dict("records"):
        c = case.classes.names.index(row["class"])
        y, s = labels[known[:, c], c], scores[known[:, c], c]
        assert row["positives"] == y.sum()
        assert row["ap"] == pytest.approx(average_precision_score(y, s), abs=1e-9)
        assert row["f1"] == pytest.approx(f1_score(y, s >= np.float32(row["threshold"]), zero_division=0), abs=1e-9)
        assert np.isfinite(row["ap_low"]) == (y.sum() >= 10)
        assert row["threshold"] == pytest.approx(results["thresholds"]["classes"][c]["threshold"], abs=1e-9)
        assert row["borrowed"] == results["thresholds"]["classes"][c]["borrowed"]


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


def test_calibration_is_measured_on_the_test_rows() -> None:
    case = make_case(unknown=0.1, sizes=(60, 300, 300))
    results = case.evaluate()
    labels, known, scores = case.labels("test"), case.known("test"), stored(results, "capnet", "test")
    buckets = results["evaluation"]["calibration"]["buckets"]
    assert list(buckets) == ["all", "head", "medium", "tail"]
    assert buckets["all"]["brier_raw"] == pytest.approx(
        brier_score_loss(labels[known], scores[known].astype(float)), abs=1e-9
    )
    assert buckets["all"]["brier_calibrated"] < buckets["all"]["brier_raw"] - 0.005
    fitted = results["thresholds"]["calibration"]
    logits = np.log(scores.astype(float) / (1 - scores.astype(float)))
    probabilities = expit(logits / fitted["temperature"] + np.array(fitted["shift"]))
    assert buckets["all"]["brier_calibrated"] == pytest.approx(
        brier_score_loss(labels[known], probabilities[known]), abs=1e-6
    )
    assert sum(item["count"] for item in buckets["tail"]["calibrated"]) == buckets["tail"]["entries"]


def test_the_probe_can_be_left_out() -> None:
    results = make_case().evaluate(Evaluate.model_validate({"bootstrap": 100, "probe": {"enabled": False}}))
    assert "linear_probe" not in results["evaluation"]
    assert "capnet-linear_probe" not in results["evaluation"]["differences"]
    assert results["per_class"]["ap_linear_probe"].isna().all()


def test_the_whole_stage_with_a_tiny_model(
    make_outputs: Callable[..., dict[str, Path]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("CAPNET_STATE", str(tmp_path / "state"))
    paths = make_outputs(tmp_path / "outputs")
    classes = read_classes(paths["split"] / "classes.json")
    data, rng, rows = tmp_path / "data", np.random.default_rng(0), []
    (data / "images").mkdir(parents=True)
    for number in range(36):
        path = data / "images" / f"{number}.png"
        Image.fromarray(rng.integers(0, 255, (44, 52, 3), dtype=np.uint8)).save(path)
        split = ("train", "val", "test")[number % 3]
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
                "split": split,
            }
        )
    write_split(paths["split"] / "split.parquet", pd.DataFrame(rows))

    params = Params.model_validate({"evaluate": {"bootstrap": 100}, "runtime": {"device": "cpu", "threads": 1}})
    inputs = {"split": paths["split"], "model": paths["model"], "data": data}
    first, second = tmp_path / "first", tmp_path / "second"
    metrics = run("evaluate", params, inputs, {"evaluation": first})
    run("evaluate", params, inputs, {"evaluation": second})
    assert "runtime.precision" not in caplog.text
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
    assert content["model_md5"] == tree_hash(paths["model"])
    assert content["split_md5"] == tree_hash(paths["split"])
    assert read_json(first / "thresholds.json")["class_fingerprint"] == classes.fingerprint
    assert read_json(first / "thresholds.json")["views"] == read_json(paths["model"] / "config.json")["tte"]
    assert "<html" in (first / "report.html").read_text().lower()
    assert str(tmp_path) not in "".join((first / name).read_text() for name in names if not name.endswith(".parquet"))

    config = read_json(paths["model"] / "config.json")
    (paths["model"] / "config.json").write_text(json.dumps(config | {"precision": "bf16"}))
    exact = params.model_copy(update={"runtime": params.runtime.model_copy(update={"precision": "fp32"})})
    run("evaluate", exact, inputs, {"evaluation": tmp_path / "third"})
    assert "figures and thresholds are of scores in fp32, and this model works in bf16" in caplog.text
