"""Curves for plots against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import average_precision_score, precision_recall_curve
from unit.evaluation.made_scores import make

from capnet.evaluation.curves import pr_curve, reliability


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


def test_reliability_is_scikit_learns_calibration_curve() -> None:
    rng = np.random.default_rng(3)
    probabilities = np.concatenate([rng.beta(0.5, 2, 400), [0.0, 1.0]])
    labels = rng.random(402) < probabilities
    result = reliability(labels, probabilities)
    observed, mean = calibration_curve(labels, probabilities, n_bins=10)
    np.testing.assert_allclose([item["observed"] for item in result], observed)
    np.testing.assert_allclose([item["mean"] for item in result], mean)
    assert sum(item["count"] for item in result) == 402
