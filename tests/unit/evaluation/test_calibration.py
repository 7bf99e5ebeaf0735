"""Calibration against simulated truth and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss
from unit.evaluation.made_scores import make

import capnet.evaluation.calibration as calibration_module
from capnet.evaluation.calibration import (
    OWN_TEMPERATURE,
    Calibration,
    brier,
    calibrate,
    cross_calibrate,
    cross_entropy,
    fit_calibration,
    logits,
    uncalibrate,
)


def _simulated(pictures: int, shifts: np.ndarray, temperature: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels and scores whose true probability is sigmoid(logit(score) / temperature + shift)."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(-1.0, 1.5, (pictures, len(shifts)))
    return rng.random(truth.shape) < expit(truth), expit((truth - shifts) * temperature).astype(np.float32)


def test_the_true_temperature_and_shifts_are_found() -> None:
    shifts = np.array([-2.0, -1.0, 0.5, 1.0])
    labels, scores = _simulated(20000, shifts, 0.4)
    calibration = fit_calibration(labels, np.ones_like(labels), scores, prior=1.0)
    assert calibration.temperature == pytest.approx(0.4, rel=0.03)
    np.testing.assert_allclose(calibration.shift, shifts, atol=0.1)


def test_classes_of_other_temperatures_are_found_and_rare_ones_lean_on_the_others() -> None:
    """As in a blend that is surer of frequent classes: one temperature for all leaves the last two classes wrong."""
    rng = np.random.default_rng(3)
    truth = rng.normal(-1.0, 1.5, (6000, 4))
    labels, temperature = rng.random(truth.shape) < expit(truth), np.array([1.0, 1.0, 0.4, 0.4])
    scores, known = expit(truth * temperature).astype(np.float32), np.ones_like(labels)
    known[12:, 3] = False
    calibration = fit_calibration(labels & known, known, scores, prior=1.0)
    np.testing.assert_allclose(calibration.temperature[:3], temperature[:3], rtol=0.1)
    assert calibration.temperature[2] < calibration.temperature[3] < calibration.temperature[0]
    fine = np.abs(calibrate(calibration, scores) - expit(truth))[:, :3].mean(axis=0)
    assert (fine < 0.01).all()


def test_one_class_is_platt_scaling() -> None:
    """With one class the shared shift has no prior, so the fit is an unpenalised logistic regression on the logit."""
    labels, scores = _simulated(300, np.array([0.7]), 0.5, seed=1)
    calibration = fit_calibration(labels, np.ones_like(labels), scores, prior=1.0)
    model = LogisticRegression(C=1e9, tol=1e-10, max_iter=1000).fit(logit(scores.astype(np.float64)), labels[:, 0])
    assert 1 / calibration.temperature == pytest.approx(model.coef_[0, 0], rel=1e-3)
    assert calibration.shift[0] == pytest.approx(model.intercept_[0], abs=1e-3)


def test_rare_classes_lean_on_the_others() -> None:
    labels, scores = _simulated(400, np.array([0.0, 0.0, 0.0, 3.0, 3.0]), 1.0, seed=2)
    known = np.ones_like(labels)
    known[12:, 4] = False  # the last class is the fourth one with few rows
    shift = fit_calibration(labels & known, known, scores, prior=1.0).shift
    assert 2.5 < shift[3] < 3.6
    assert 0.3 < shift[4] < shift[3] - 0.2
    weak, strong = (fit_calibration(labels & known, known, scores, prior=prior).shift for prior in (0.1, 100.0))
    assert np.ptp(strong) < np.ptp(shift) < np.ptp(weak)


def test_classes_without_positives_or_without_known_rows_stay_finite() -> None:
    made = make(60, 5, seed=3)
    labels, known = made.labels.copy(), made.known.copy()
    labels[:, 1], known[:, 2], labels[:, 2] = False, False, False
    calibration = fit_calibration(labels, known, made.scores, prior=1.0)
    assert np.isfinite(calibration.shift).all()
    others = calibration.shift[[0, 3, 4]]
    assert calibration.shift[1] < others.min()
    assert others.min() < calibration.shift[2] < others.max()  # nothing known: the shared shift


def test_scores_that_separate_perfectly_and_scores_of_0_and_1() -> None:
    labels = np.arange(40)[:, None] % 4 == np.arange(3)
    calibration = fit_calibration(labels, np.ones_like(labels), labels.astype(np.float32), prior=1.0)
    probabilities = calibrate(calibration, labels.astype(np.float32))
    assert np.isfinite(probabilities).all()
    assert (probabilities[labels] > 0.99).all()
    assert (probabilities[~labels] < 0.01).all()


def test_nothing_to_fit_gives_the_identity() -> None:
    scores = np.linspace(0.1, 0.9, 12, dtype=np.float32).reshape(4, 3)
    for labels, known in ((False, True), (True, True), (True, False)):
        calibration = fit_calibration(np.full((4, 3), labels), np.full((4, 3), known), scores, prior=1.0)
        np.testing.assert_allclose(calibrate(calibration, scores), scores, atol=1e-7)


def test_unknown_entries_have_no_effect() -> None:
    made = make(80, 4, seed=4, unknown=0.3)
    labels, scores = made.labels.copy(), made.scores.copy()
    labels[~made.known], scores[~made.known] = True, 0.001
    first = fit_calibration(made.labels, made.known, made.scores, prior=1.0)
    second = fit_calibration(labels, made.known, scores, prior=1.0)
    assert first.temperature == pytest.approx(second.temperature, rel=1e-6)
    np.testing.assert_allclose(first.shift, second.shift, atol=1e-6)


def test_calibration_is_monotone_and_its_inverse_leads_back() -> None:
    calibration = Calibration(0.3, np.array([-2.0, 0.0, 1.5]))
    scores = np.sort(np.random.default_rng(5).random(500)).astype(np.float32)[:, None].repeat(3, axis=1)
    assert (np.diff(calibrate(calibration, scores), axis=0) >= 0).all()
    for probability in (0.05, 0.5, 0.9):
        np.testing.assert_allclose(
            calibrate(calibration, uncalibrate(calibration, probability)[None]), probability, atol=1e-6
        )


def test_calibration_lowers_the_brier_score_of_other_rows() -> None:
    shifts = np.linspace(-2, 2, 8)
    labels, scores = _simulated(2400, shifts, 0.3, seed=6)
    known = np.ones_like(labels)
    calibration = fit_calibration(labels[:400], known[:400], scores[:400], prior=1.0)
    before, after = (
        brier(labels[400:], known[400:], values) for values in (scores[400:], calibrate(calibration, scores[400:]))
    )
    assert after < before - 0.02
    assert before == pytest.approx(
        brier_score_loss(labels[400:].ravel(), scores[400:].ravel().astype(np.float64)), abs=1e-9
    )
    assert np.isnan(brier(labels, ~known, scores))


@pytest.mark.parametrize("block", [1, 300, 65_536])
def test_the_search_minimises_the_cross_entropy_whatever_the_size_of_its_blocks(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks hold one image, or do not divide the images, or hold all: each finds what scipy's own functions find."""
    labels, scores = _simulated(250, np.array([-2.0, -1.0, 0.5]), 0.4)
    known = np.random.default_rng(1).random(labels.shape) < 0.9
    monkeypatch.setattr(calibration_module, "BLOCK", block)
    fitted = fit_calibration(labels, known, scores, prior=3.0)

    def loss(parameters: np.ndarray) -> float:
        (log_shared, shared), (log_own, own) = parameters[:2], parameters[2:].reshape(2, 3)
        x = logits(scores) - logits(scores)[known].mean()
        margin = np.where(labels, 1, -1) * (x * np.exp(-log_shared - log_own) + shared + own)
        pulled = 3.0 / 2 * (own**2).sum() + OWN_TEMPERATURE / 2 * (log_own**2).sum()
        return float(np.logaddexp(0, -margin)[known].sum() + pulled)

    best = minimize(loss, np.zeros(8), method="L-BFGS-B", options={"maxiter": 5000, "maxfun": 50_000}).x
    expected = np.exp(best[0] + best[2:5])
    np.testing.assert_allclose(fitted.temperature, expected, rtol=1e-3)
    np.testing.assert_allclose(fitted.shift, best[1] + best[5:] - logits(scores)[known].mean() / expected, atol=5e-3)


def test_loss_and_slope_come_from_one_exponential() -> None:
    margin = np.array([-800.0, -30.0, -1.0, -1e-12, 0.0, 1e-12, 1.0, 30.0, 800.0])
    entropy, wrong = cross_entropy(margin)
    np.testing.assert_allclose(entropy, np.logaddexp(0.0, -margin), rtol=1e-14)
    np.testing.assert_allclose(wrong, expit(-margin), rtol=1e-14)


@pytest.mark.parametrize("grouped", [False, True])
def test_no_image_and_no_group_decides_its_own_probabilities(grouped: bool) -> None:
    labels, scores = _simulated(60, np.array([0.5, -0.5]), 0.5)
    groups = np.arange(60) // 3 * 7 if grouped else None
    known = np.ones_like(labels)
    calibration = fit_calibration(labels, known, scores, 1.0)
    before = cross_calibrate(calibration, labels, known, scores, 1.0, groups)
    for image in (0, 17, 40):
        own = groups == groups[image] if groups is not None else np.arange(60) == image
        others = np.where(own[:, None], ~labels, labels)
        after = cross_calibrate(calibration, others, known, scores, 1.0, groups)
        np.testing.assert_array_equal(after[own], before[own])
        assert (after != before).any(axis=1).mean() > 0.5, "but those of most others"
