"""Curves for plots against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import average_precision_score, precision_recall_curve
from unit.evaluation.made_scores import make

from capnet.evaluation.curves import GRID, POINTS, interpolated, pr_curve, pr_table, reliability, thin
from capnet.evaluation.metrics import bucket_masks


@pytest.mark.parametrize("levels", [0, 6])
def test_pr_curve_is_scikit_learns(levels: int) -> None:
    made = make(120, 3, seed=1, levels=levels)
    for c in range(3):
        labels, scores = made.labels[:, c], made.scores[:, c]
        recall, precision = pr_curve(labels, scores)
        expected = set(zip(*(np.round(part, 9) for part in precision_recall_curve(labels, scores)[1::-1]), strict=True))
        assert set(zip(np.round(recall, 9), np.round(precision, 9), strict=True)) <= expected
        assert (np.diff(recall) > 0).all()
        assert recall[-1] == 1.0
        area = (np.diff(recall, prepend=0) * precision).sum()
        assert area == pytest.approx(average_precision_score(labels, scores))


def test_thinning_keeps_the_ends_and_only_points_of_the_curve() -> None:
    recall, precision = np.linspace(0, 1, 1000), np.random.default_rng(0).random(1000)
    r, p = thin(recall, precision)
    assert len(r) <= POINTS
    assert (r[0], r[-1], p[0], p[-1]) == (recall[0], recall[-1], precision[0], precision[-1])
    assert set(zip(r, p, strict=True)) <= set(zip(recall, precision, strict=True))
    assert thin(recall[:5], precision[:5])[0].tolist() == recall[:5].tolist()


def test_interpolation_takes_the_best_precision_from_there_on() -> None:
    recall, precision = np.array([0.25, 0.5, 1.0]), np.array([0.3, 0.6, 0.4])
    found = interpolated(recall, precision)
    for value, at in zip(found, GRID, strict=True):
        assert value == max(p for r, p in zip(recall, precision, strict=True) if r >= at - 1e-9)


def test_table_has_mean_curves_of_buckets_and_curves_of_classes_with_positives() -> None:
    made = make(300, 4, seed=2, unknown=0.1)
    labels = made.labels.copy()
    labels[:, 3] = False
    rows = pr_table(
        "capnet",
        labels,
        made.known,
        made.scores,
        ["a", "b", "c", "d"],
        bucket_masks(["head", "tail", "tail", "medium"]),
        per_class=True,
    )
    assert {row["name"] for row in rows if row["kind"] == "class"} == {"a", "b", "c"}
    assert {row["name"] for row in rows if row["kind"] == "bucket"} == {"all", "head", "tail"}
    own = pr_curve(labels[made.known[:, 0], 0], made.scores[made.known[:, 0], 0])
    head = [row["precision"] for row in rows if row["name"] == "head"]
    np.testing.assert_allclose(head, interpolated(*own), atol=1e-6)
    assert pr_table("x", labels, made.known, made.scores, list("abcd"), {}, per_class=False) == []


def test_reliability_is_scikit_learns_calibration_curve() -> None:
    rng = np.random.default_rng(3)
    probabilities = np.concatenate([rng.beta(0.5, 2, 400), [0.0, 1.0]])
    labels = rng.random(402) < probabilities
    found = reliability(labels, probabilities)
    observed, mean = calibration_curve(labels, probabilities, n_bins=10)
    np.testing.assert_allclose([item["observed"] for item in found], observed)
    np.testing.assert_allclose([item["mean"] for item in found], mean)
    assert sum(item["count"] for item in found) == 402
