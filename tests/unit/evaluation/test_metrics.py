"""AP, F1 and means against scikit-learn and against the reference numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score
from unit.evaluation.made_scores import make

from capnet.evaluation.metrics import (
    average_precision,
    bucket_masks,
    class_f1,
    count,
    mean_over,
    means,
    overall_f1,
    precision,
    rank,
    recall,
    weighted_average_precision,
)

ONE = np.ones((60, 1))


@pytest.fixture(scope="module")
def reference(shared: Path) -> dict[str, Any]:
    content = json.loads((shared / "reference" / "map_fixture.json").read_text())
    case = content["cases"][0]
    labels, logits = np.array(content["labels"], dtype=bool), np.array(case["logits"])
    counts = np.array(content["class_freq"])
    buckets = ["head" if n >= 100 else "tail" if n < 20 else "medium" for n in counts]
    return {
        "labels": labels,
        "known": np.ones_like(labels),
        "logits": logits,
        "buckets": buckets,
        "groups": content["groups"],
        "expected": case["expected"],
    }


@pytest.mark.parametrize("levels", [0, 3, 12])
@pytest.mark.parametrize("unknown", [0.0, 0.3])
def test_ap_is_scikit_learns(levels: int, unknown: float) -> None:
    made = make(80, 9, levels=levels, unknown=unknown)
    ap = average_precision(made.labels, made.scores, made.known)
    for c in range(9):
        rows = made.known[:, c]
        assert ap[c] == pytest.approx(average_precision_score(made.labels[rows, c], made.scores[rows, c]), abs=1e-12)


@pytest.mark.parametrize("levels", [0, 4])
def test_weighted_ap_is_that_of_repeated_rows(levels: int) -> None:
    made = make(70, 6, seed=1, levels=levels, unknown=0.2, rarest=0.2)
    weights = np.random.default_rng(2).integers(0, 4, (70, 8)).astype(np.float32)
    ap = weighted_average_precision(rank(made.labels, made.scores, made.known), weights)
    for draw in range(8):
        times = weights[:, draw].astype(int)
        for c in range(6):
            rows = np.repeat(np.arange(70), times)
            rows = rows[made.known[rows, c]]
            assert ap[c, draw] == pytest.approx(
                average_precision_score(made.labels[rows, c], made.scores[rows, c]), abs=1e-6
            )


def test_weighted_ap_takes_any_weights() -> None:
    made = make(50, 4, seed=3, levels=6, rarest=0.2)
    weights = np.random.default_rng(4).random((50, 3))
    ap = weighted_average_precision(rank(made.labels, made.scores, np.ones_like(made.labels)), weights)
    for draw in range(3):
        for c in range(4):
            assert ap[c, draw] == pytest.approx(
                average_precision_score(made.labels[:, c], made.scores[:, c], sample_weight=weights[:, draw]), abs=1e-12
            )


def test_ap_at_the_edges() -> None:
    labels = np.array([[1, 0, 1, 0], [0, 0, 1, 1], [1, 0, 1, 0], [0, 0, 1, 0]], dtype=bool)
    scores = np.array([[0.5, 0.1, 0.2, 0.1], [0.5, 0.3, 0.4, 0.2], [0.5, 0.2, 0.9, 0.3], [0.5, 0.2, 0.1, 0.4]])
    ap = average_precision(labels, scores, np.ones_like(labels))
    assert ap[0] == pytest.approx(0.5)  # all scores equal: the share of positives
    assert np.isnan(ap[1])  # no positive
    assert np.isnan(ap[2])  # nothing but positives: scikit-learn says 1, whatever the scores
    assert ap[3] == pytest.approx(1 / 3)
    nobody = average_precision(labels, scores, np.zeros_like(labels))
    assert np.isnan(nobody).all()


def test_a_draw_without_positives_is_nan_and_not_zero() -> None:
    labels = np.array([[True], [False], [False]])
    weights = np.array([[0.0, 1.0], [2.0, 1.0], [1.0, 1.0]])
    ap = weighted_average_precision(rank(labels, np.array([[0.9], [0.5], [0.1]]), np.ones_like(labels)), weights)
    assert np.isnan(ap[0, 0])
    assert ap[0, 1] == 1.0


def test_a_class_without_a_known_negative_has_no_average_precision() -> None:
    """Every order of its positives is perfect, so 1 would only flatter the means."""
    labels = np.array([[True, True], [True, True], [False, False]])
    known = np.array([[True, True], [True, True], [False, True]])
    ap = average_precision(labels, np.full(labels.shape, 0.5), known)
    assert np.isnan(ap[0])
    assert ap[1] == pytest.approx(2 / 3)


def test_unknown_entries_have_no_effect() -> None:
    made = make(90, 7, seed=5, unknown=0.3)
    rng = np.random.default_rng(6)
    labels, scores = made.labels.copy(), made.scores.copy()
    labels[~made.known] = rng.random((~made.known).sum()) < 0.5
    scores[~made.known] = rng.random((~made.known).sum())
    np.testing.assert_array_equal(
        average_precision(made.labels, made.scores, made.known), average_precision(labels, scores, made.known)
    )
    one = np.ones((90, 1))
    first, second = (count(y, s >= 0.5, one, made.known) for y, s in ((made.labels, made.scores), (labels, scores)))
    for name in ("hit", "predicted", "true"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def test_f1_is_scikit_learns_under_weights() -> None:
    made = make(120, 5, seed=7, rarest=0.2)
    weights = np.random.default_rng(8).integers(0, 3, (120, 4)).astype(np.float64)
    predicted = made.scores >= 0.4
    counts = count(made.labels, predicted, weights, np.ones_like(predicted))
    for draw in range(4):
        sample = weights[:, draw]
        for c in range(5):
            pair = (made.labels[:, c], predicted[:, c])
            assert class_f1(counts)[c, draw] == pytest.approx(f1_score(*pair, sample_weight=sample))
            assert precision(counts)[c, draw] == pytest.approx(precision_score(*pair, sample_weight=sample))
            assert recall(counts)[c, draw] == pytest.approx(recall_score(*pair, sample_weight=sample))
        repeated = np.repeat(np.arange(120), sample.astype(int))
        assert overall_f1(counts)[draw] == pytest.approx(
            f1_score(made.labels[repeated], predicted[repeated], average="micro")
        )


def test_f1_of_a_class_without_positives_is_left_out_of_cf1_but_its_errors_count_in_of1() -> None:
    labels = np.array([[1, 0], [0, 0]], dtype=bool)
    predicted = np.array([[1, 1], [0, 0]], dtype=bool)
    one, every = np.ones((2, 1)), np.ones_like(labels)
    counts = count(labels, predicted, one, every)
    result = means(np.array([[1.0], [np.nan]]), {"": counts}, bucket_masks(["head", "tail"]))
    assert result["CF1"][0] == 1.0
    assert result["OF1"][0] == pytest.approx(2 / 3)
    assert np.isnan(result["tail"][0])
    assert result["mAP"][0] == 1.0
    assert np.isnan(precision(count(labels, np.zeros_like(predicted), one, every))).all(), "no label is given"


def test_mean_leaves_nan_out_and_buckets_without_classes_have_no_name() -> None:
    values = np.array([[0.2, np.nan], [0.4, np.nan], [np.nan, 0.9]])
    np.testing.assert_allclose(mean_over(values), [0.3, 0.9])
    assert np.isnan(mean_over(values, np.array([True, True, False]))[1])
    assert list(bucket_masks(["tail", "head", "tail"])) == ["mAP", "head", "tail"]


def test_reference_ap(reference: dict[str, Any]) -> None:
    expected, masks = reference["expected"], bucket_masks(reference["buckets"])
    assert {name: np.flatnonzero(mask).tolist() for name, mask in masks.items() if name != "mAP"} == reference["groups"]
    ap = average_precision(reference["labels"], reference["logits"], reference["known"])
    np.testing.assert_allclose(ap, expected["ap_per_class"], atol=1e-12)
    distinct = np.array([len(set(column)) == len(column) for column in reference["logits"].T])
    assert distinct.sum() >= 6, "the SCPNet-style AP depends on the order of equal scores"
    np.testing.assert_allclose(
        100 * ap[distinct], np.multiply(100, expected["scpnet_style_ap_per_class"])[distinct], atol=1e-5
    )
    assert float(mean_over(ap)) == pytest.approx(expected["map_total"], abs=1e-12)
    assert 100 * float(mean_over(ap)) == pytest.approx(expected["scpnet_style_map_percent"], abs=0.05)
    for name, value in expected["map_groups"].items():
        assert float(mean_over(ap, masks[name])) == pytest.approx(value, abs=1e-12)


def test_reference_ap_on_a_softmax_over_classes(reference: dict[str, Any]) -> None:
    expected, masks = reference["expected"], bucket_masks(reference["buckets"])
    ap = average_precision(reference["labels"], softmax(reference["logits"], axis=1), reference["known"])
    np.testing.assert_allclose(ap, expected["softmax_over_classes_ap_per_class"], atol=1e-12)
    assert float(mean_over(ap)) == pytest.approx(expected["softmax_over_classes_map"], abs=1e-12)
    for name, value in expected["softmax_over_classes_map_groups"].items():
        assert float(mean_over(ap, masks[name])) == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize(
    ("key", "transform", "cut"), [("f1_at_sigmoid_gt_0_5", expit, 0.5), ("f1_at_softmax_gt_0_3", softmax, 0.3)]
)
def test_reference_f1(reference: dict[str, Any], key: str, transform: Any, cut: float) -> None:
    scores = transform(reference["logits"], **({"axis": 1} if transform is softmax else {}))
    counts = count(reference["labels"], scores > cut, ONE, reference["known"])
    expected = reference["expected"][key]
    cp, cr = (np.nan_to_num(measure(counts)[:, 0]).mean() for measure in (precision, recall))
    op, part = counts.hit.sum() / counts.predicted.sum(), counts.hit.sum() / counts.true.sum()
    assert 100 * cp == pytest.approx(expected["CP"], abs=1e-6)
    assert 100 * cr == pytest.approx(expected["CR"], abs=1e-6)
    assert 100 * op == pytest.approx(expected["OP"], abs=1e-6)
    assert 100 * part == pytest.approx(expected["OR"], abs=1e-6)
    assert 100 * mean_over(class_f1(counts))[0] == pytest.approx(expected["CF1_mean_of_per_class_f1"], abs=1e-6)
    assert 100 * 2 * cp * cr / (cp + cr) == pytest.approx(expected["CF1_from_mean_P_R"], abs=1e-6)
    assert 100 * overall_f1(counts)[0] == pytest.approx(expected["OF1"], abs=1e-6)
    if transform is expit:
        assert overall_f1(counts)[0] == pytest.approx(reference["expected"]["micro_f1_logit_gt_0"], abs=1e-12)
        assert mean_over(class_f1(counts))[0] == pytest.approx(reference["expected"]["macro_f1_logit_gt_0"], abs=1e-12)
