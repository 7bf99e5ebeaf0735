"""The linear probe against scikit-learn fitted directly on the features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import normalize
from threadpoolctl import threadpool_limits

from capnet import progress
from capnet.data.splits.stratify import stratified_folds
from capnet.errors import ContractError
from capnet.evaluation.baselines import FittedProbe, ProbeRows, fit_linear_probe, read_probe, write_probe
from capnet.evaluation.logistic import (
    CHUNK,
    MOST_STEPS,
    C,
    centre_of,
    directions,
    fit_probe,
    probe_logits,
    probe_scores,
)
from capnet.evaluation.metrics import average_precision, mean_over
from capnet.model.members import LinearProbe

VIEWS = 3


def _data(
    pictures: int, width: int, classes: int = 4, seed: int = 0, noise: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Non-negative features [image, view, feature] as after a ReLU, and labels that depend on them."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(pictures, 1, 6))
    features = np.maximum(
        hidden @ np.random.default_rng(99).normal(size=(6, width)) + rng.normal(size=(pictures, VIEWS, width)), 0
    )
    logits = hidden[:, 0] @ np.random.default_rng(98).normal(size=(6, classes)) * 2 + noise * rng.normal(
        size=(pictures, classes)
    )
    return features.astype(np.float32), logits > np.linspace(0.3, 3.0, classes)


def _turned(features: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """scikit-learn's unit vectors of every view, averaged."""
    double = features.astype(np.float64) - centre
    return np.mean([normalize(double[:, view]) for view in range(features.shape[1])], axis=0)


def _expected(
    seen: np.ndarray, labels: np.ndarray, known: np.ndarray, new: np.ndarray, centre: np.ndarray
) -> np.ndarray:
    """scikit-learn's decision function [new image, class] of a fit on the known rows of ``seen``."""
    columns = []
    for c in range(labels.shape[1]):
        rows = known[:, c]
        model = LogisticRegression(C=C, tol=1e-9, max_iter=10000)
        columns.append(model.fit(_turned(seen[rows], centre), labels[rows, c]).decision_function(_turned(new, centre)))
    return np.stack(columns, axis=1)


def _close_up_to_a_factor(logits: np.ndarray, expected: np.ndarray, tolerance: float = 0.02) -> None:
    """A fit may be scaled down as a whole, so that float32 scores stay apart."""
    factor = (logits * expected).sum() / (expected**2).sum()
    assert 0 < factor < 1.01
    for c in range(logits.shape[1]):
        np.testing.assert_allclose(
            logits[:, c], factor * expected[:, c], atol=tolerance * factor * expected[:, c].std()
        )


@pytest.mark.parametrize("shape", [(60, 150), (150, 40)])
def test_the_fit_is_scikit_learns(shape: tuple[int, int]) -> None:
    features, labels = _data(*shape)
    known = np.random.default_rng(1).random(labels.shape) > 0.15
    centre = features.mean(axis=(0, 1), dtype=np.float64)
    probe = fit_probe(_turned(features, centre), centre, labels & known, known)
    new = _data(50, shape[1], seed=7)[0]
    expected = _expected(features, labels, known, new, centre)
    np.testing.assert_allclose(probe_logits(probe, new), expected, atol=0.02 * expected.std(axis=0).min())


def test_the_fitted_probe_is_that_fit_on_all_of_its_rows() -> None:
    features, labels = _data(90, 40, seed=2, noise=2.0)
    known = np.random.default_rng(4).random(labels.shape) > 0.2
    probe = fit_linear_probe(ProbeRows(features, labels & known, known))
    assert probe.held_out is None
    centre = features.mean(axis=(0, 1), dtype=np.float64)
    np.testing.assert_allclose(probe.probe.centre, centre, rtol=1e-6)
    new = _data(50, 40, seed=7)[0]
    _close_up_to_a_factor(probe_logits(probe.probe, new), _expected(features, labels, known, new, centre))


def test_a_refit_has_scores_of_the_validation_rows_by_a_fit_without_them() -> None:
    (features, labels), (val_features, val_labels) = _data(90, 40, seed=2), _data(60, 40, seed=3)
    known, val_known = (
        np.random.default_rng(seed).random(item.shape) > 0.2 for seed, item in ((4, labels), (5, val_labels))
    )
    probe = fit_linear_probe(
        ProbeRows(features, labels & known, known), ProbeRows(val_features, val_labels & val_known, val_known)
    )
    both, targets, seen = (
        np.concatenate(pair) for pair in ((features, val_features), (labels, val_labels), (known, val_known))
    )
    centre = both.mean(axis=(0, 1), dtype=np.float64)
    new = _data(50, 40, seed=7)[0]
    _close_up_to_a_factor(probe_logits(probe.probe, new), _expected(both, targets, seen, new, centre))
    assert probe.held_out is not None
    before = fit_linear_probe(ProbeRows(features, labels & known, known)).probe
    np.testing.assert_array_equal(probe.held_out, probe_scores(before, val_features))


def test_out_of_fold_scores_are_those_of_scikit_learn_without_the_fold() -> None:
    features, labels = _data(120, 20, seed=6, noise=2.0)
    known = np.random.default_rng(7).random(labels.shape) > 0.2
    labels, folds = labels & known, np.random.default_rng(8).integers(3, size=len(labels))
    plain = fit_linear_probe(ProbeRows(features, labels, known))
    parts = (ProbeRows(features[rows], labels[rows], known[rows]) for rows in (slice(0, 80), slice(80, None)))
    probe = fit_linear_probe(*parts, folds)
    np.testing.assert_allclose(probe.probe.weight, plain.probe.weight, rtol=1e-5, atol=1e-7)
    assert probe.held_out is not None
    centre = features.mean(axis=(0, 1), dtype=np.float64)
    logits = logit(probe.held_out.astype(np.float64))
    for fold in range(3):
        inside, outside = folds != fold, folds == fold
        expected = _expected(features[inside], labels[inside], known[inside], features[outside], centre)
        for c in range(labels.shape[1]):
            assert np.corrcoef(logits[outside, c], expected[:, c])[0, 1] > 0.999


def test_copies_in_one_group_do_not_make_held_out_scores_look_good() -> None:
    rng = np.random.default_rng(1)
    features = rng.normal(size=(60, VIEWS, 90)).repeat(3, axis=0)
    labels, groups = (rng.random((60, 4)) < 0.3).repeat(3, axis=0), np.repeat(np.arange(60), 3)
    every = np.ones_like(labels)
    reached = []
    for units in (np.arange(180), groups):
        probe = fit_linear_probe(ProbeRows(features, labels, every), folds=stratified_folds(labels, units, 3, 0))
        assert probe.held_out is not None
        reached.append(float(mean_over(average_precision(labels, probe.held_out, every))))
    assert reached[0] > 0.7, "labels are noise, and the copies of a row are known"
    assert reached[1] < 0.5


def test_the_logit_of_an_image_is_the_mean_of_those_of_its_views_and_the_models() -> None:
    features, labels = _data(80, 30)
    probe = fit_linear_probe(ProbeRows(features, labels, np.ones_like(labels))).probe
    views = _data(40, 30, seed=5)[0]
    of_views = [probe_logits(probe, views[:, [view]]) for view in range(VIEWS)]
    np.testing.assert_allclose(probe_logits(probe, views), np.mean(of_views, axis=0), atol=1e-10)
    model = LinearProbe(4, 30)
    tensors = {"weight": probe.weight.T, "bias": probe.bias, "centre": probe.centre}
    model.load_state_dict({name: torch.from_numpy(item.copy()).float() for name, item in tensors.items()})
    np.testing.assert_allclose(model(torch.from_numpy(views[:, 1])).numpy(), of_views[1], atol=1e-5)


def test_brightness_changes_no_score_and_a_feature_at_the_centre_is_finite() -> None:
    features, labels = _data(80, 30)
    probe = fit_linear_probe(ProbeRows(features, labels, np.ones_like(labels))).probe
    offsets = features[:5] - probe.centre
    np.testing.assert_allclose(
        probe_logits(probe, probe.centre + 3 * offsets), probe_logits(probe, features[:5]), atol=1e-6
    )
    at_centre = np.broadcast_to(probe.centre, (1, VIEWS, 30))
    np.testing.assert_allclose(probe_logits(probe, at_centre)[0], probe.bias, atol=1e-6)


def test_many_images_are_read_some_at_a_time_with_the_same_numbers() -> None:
    features = np.random.default_rng(0).normal(size=(2 * CHUNK + 7, VIEWS, 5)).astype(np.float32)
    centre = centre_of(features)
    np.testing.assert_allclose(centre, features.mean(axis=(0, 1), dtype=np.float64), rtol=1e-9)
    np.testing.assert_allclose(directions(features, centre), _turned(features, centre), atol=1e-12)
    np.testing.assert_array_equal(directions(torch.from_numpy(features), centre), directions(features, centre))


def test_classes_without_positives_or_without_negatives_get_a_constant() -> None:
    features, labels = _data(60, 20)
    labels[:, 1], labels[:, 2] = False, True
    known = np.ones_like(labels)
    known[:, 3] = False
    folds = np.arange(60) % 3
    probe = fit_linear_probe(ProbeRows(features, labels & known, known), folds=folds)
    assert probe.held_out is not None
    for scores in (probe_scores(probe.probe, features), probe.held_out[folds == 0]):
        assert np.ptp(scores[:, 0]) > 0.1
        assert (np.ptp(scores[:, 1:], axis=0) == 0).all()
        assert scores[0, 1] < 0.05
        assert scores[0, 2] > 0.95
        assert scores[0, 3] == 0.5


def test_unknown_entries_have_no_effect() -> None:
    features, labels = _data(80, 30)
    known = np.random.default_rng(4).random(labels.shape) > 0.3
    first, second = (
        fit_linear_probe(ProbeRows(features, y, known), folds=np.arange(80) % 3)
        for y in (labels & known, labels | ~known)
    )
    np.testing.assert_array_equal(first.probe.weight, second.probe.weight)
    np.testing.assert_array_equal(first.held_out, second.held_out)


def test_float32_scores_keep_the_ranks_of_the_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("capnet.evaluation.logistic.C", 1e6)
    features, labels = _data(300, 40, seed=5, noise=0.1)
    new, new_labels = _data(400, 40, seed=6, noise=0.1)
    every = np.ones_like(labels)
    probe = fit_linear_probe(ProbeRows(features, labels, every)).probe
    plain = fit_probe(directions(features, probe.centre), probe.centre, labels, every)
    logits, scores = probe_logits(plain, new), probe_scores(probe, new)
    assert np.abs(logits).max() > 40
    assert (expit(logits).astype(np.float32) == 1).sum() > 10, "a plain float32 sigmoid makes equal scores"
    np.testing.assert_array_equal(logits > 0, scores > 0.5)
    first, second = (average_precision(new_labels, item, np.ones_like(new_labels)) for item in (scores, logits))
    np.testing.assert_allclose(first, second, atol=1e-3)
    for c in range(4):
        assert len(np.unique(scores[:, c])) > 0.99 * len(new)


def test_held_out_scores_know_nothing_of_their_own_labels() -> None:
    """Labels without any relation to the features: fitted rows are ranked perfectly, held-out rows no better than
    chance.
    """
    rng = np.random.default_rng(8)
    features, labels = rng.normal(size=(150, VIEWS, 400)).astype(np.float32), rng.random((150, 6)) < 0.3
    every = np.ones_like(labels)
    probe = fit_linear_probe(ProbeRows(features, labels, every), folds=np.arange(150) % 3)
    assert probe.held_out is not None
    assert float(mean_over(average_precision(labels, probe_scores(probe.probe, features), every))) > 0.99
    assert float(mean_over(average_precision(labels, probe.held_out, every))) < 0.42


def test_fits_without_a_fold_say_how_far_they_are(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(progress, "EVERY_SECONDS", 0.0)
    caplog.set_level("INFO", progress.__name__)
    features, labels = _data(60, 12)
    fit_linear_probe(ProbeRows(features, labels, np.ones_like(labels)), folds=np.arange(60) % 3)
    total = 4 * MOST_STEPS
    done = [int(message.removeprefix("linear probe: ").split(f" of {total}, about ")[0]) for message in caplog.messages]
    assert done == sorted(set(done))
    assert done[-1] == total
    assert len(done) > 20
    assert {MOST_STEPS, 2 * MOST_STEPS, 3 * MOST_STEPS} < set(done)


def test_a_constant_feature_does_no_harm() -> None:
    features, labels = _data(60, 20)
    features[..., 3], features[..., 4] = 0.1, 0.0
    probe = fit_linear_probe(ProbeRows(features, labels, np.ones_like(labels)))
    assert np.isfinite(probe_scores(probe.probe, features)).all()


def test_its_file_gives_it_back_and_damage_is_named(tmp_path: Path) -> None:
    features, labels = _data(60, 20)
    fitted = fit_linear_probe(ProbeRows(features, labels, np.ones_like(labels)), folds=np.arange(60) % 3)
    path = tmp_path / "probe.safetensors"
    sizes = labels.shape[1], 40, 20
    assert read_probe(path, *sizes) is None
    write_probe(path, fitted)
    result = read_probe(path, *sizes)
    assert result is not None
    for name in ("centre", "weight", "bias"):
        np.testing.assert_array_equal(getattr(result.probe, name), getattr(fitted.probe, name))
    np.testing.assert_array_equal(result.held_out, fitted.held_out)
    for wrong in ((sizes[0] + 1, 40, 20), (sizes[0], 41, 20), (sizes[0], 20, 41)):
        with pytest.raises(ContractError, match=r"probe\.safetensors"):
            read_probe(path, *wrong)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ContractError, match=r"probe\.safetensors"):
        read_probe(path, *sizes)


@pytest.mark.parametrize("shape", [(60,), (), (60, 4, 1), (60, 5)])
def test_held_out_scores_of_another_shape_are_named(shape: tuple[int, ...], tmp_path: Path) -> None:
    features, labels = _data(60, 20)
    fitted = fit_linear_probe(ProbeRows(features, labels, np.ones_like(labels)))
    path = tmp_path / "probe.safetensors"
    write_probe(path, FittedProbe(fitted.probe, np.zeros(shape, dtype=np.float32)))
    with pytest.raises(ContractError, match="tensor held_out is"):
        read_probe(path, 4, 60, 20)


@pytest.mark.parametrize(("count", "width"), [(300, 1280), (600, 300)])
def test_the_cores_of_a_machine_have_no_say_in_the_bits(count: int, width: int) -> None:
    features, labels = _data(count, width, classes=20)
    rows, fitted = ProbeRows(features, labels, np.ones_like(labels)), []
    for threads in (1, 2, 5):
        with threadpool_limits(threads, user_api="blas"):
            fitted.append(fit_linear_probe(rows, folds=np.arange(count) % 3))
    for other in fitted[1:]:
        assert np.array_equal(other.probe.weight, fitted[0].probe.weight)
        assert np.array_equal(other.held_out, fitted[0].held_out)
