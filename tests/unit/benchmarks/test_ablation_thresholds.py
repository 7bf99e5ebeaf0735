"""Figures of thresholds and calibration: scikit-learn's, on images that a draw holds several times or not at all."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, precision_score, recall_score

from benchmarks.ablation_thresholds import FIGURES, figures
from capnet.evaluation.curves import reliability


def test_a_draw_is_the_images_written_out() -> None:
    rng = np.random.default_rng(0)
    labels, known = rng.random((60, 7)) < 0.3, rng.random((60, 7)) < 0.8
    probabilities = rng.random((60, 7))
    decided = probabilities > 0.4
    times = rng.integers(0, 4, (60, 5)).astype(np.float32)
    got = figures(labels, known, decided, probabilities, times)
    assert set(got) == set(FIGURES)
    for draw in range(times.shape[1]):
        rows = np.repeat(np.arange(60), times[:, draw].astype(int))
        part = known[rows]
        truth, chosen, scores = labels[rows][part], decided[rows][part], probabilities[rows][part]
        assert got["recall"][draw] == pytest.approx(recall_score(truth, chosen))
        assert got["precision"][draw] == pytest.approx(precision_score(truth, chosen))
        assert got["Brier"][draw] == pytest.approx(brier_score_loss(truth, scores))
        steps = reliability(truth, scores)
        gaps = sum(step["count"] * abs(step["mean"] - step["observed"]) for step in steps)
        assert got["ECE"][draw] == pytest.approx(gaps / part.sum())


def test_without_a_positive_there_is_no_recall() -> None:
    nothing = np.zeros((3, 2), dtype=bool)
    got = figures(nothing, ~nothing, nothing, np.full((3, 2), 0.25), np.ones((3, 1), dtype=np.float32))
    assert np.isnan(got["recall"]).all()
    assert np.isnan(got["precision"]).all()
    assert got["ECE"] == pytest.approx(0.25)
