"""The linear probe against scikit-learn fitted directly on the features."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from capnet.evaluation.baselines import (
    FOLDS,
    MOST_CLASSES,
    choose_probe,
    class_folds,
    probe_logits,
    probe_scores,
    score_out_of_fold,
)
from capnet.evaluation.logistic import Settings, fit_probe
from capnet.evaluation.metrics import average_precision, mean_over


def _data(
    pictures: int, width: int, classes: int = 4, seed: int = 0, noise: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Non-negative features as after a ReLU, and labels that depend on them."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(pictures, 6))
    features = np.maximum(
        hidden @ np.random.default_rng(99).normal(size=(6, width)) + rng.normal(size=(pictures, width)), 0
    )
    logits = hidden @ np.random.default_rng(98).normal(size=(6, classes)) * 2 + noise * rng.normal(
        size=(pictures, classes)
    )
    return features.astype(np.float32), logits > np.linspace(0.3, 3.0, classes)


@pytest.mark.parametrize("shape", [(60, 150), (150, 40)])
@pytest.mark.parametrize("standardise", [False, True])
@pytest.mark.parametrize("class_weight", ["none", "balanced"])
def test_the_fit_is_scikit_learns(shape: tuple[int, int], standardise: bool, class_weight: str) -> None:
    features, labels = _data(*shape)
    known = np.random.default_rng(1).random(labels.shape) > 0.15
    probe = fit_probe(features, labels & known, known, Settings(standardise, class_weight, 0.5))
    new = _data(50, shape[1], seed=7)[0]
    double = features.astype(np.float64)
    for c in range(4):
        rows = known[:, c]
        model = LogisticRegression(
            C=0.5, class_weight=None if class_weight == "none" else class_weight, tol=1e-9, max_iter=10000
        )
        scaled = StandardScaler().fit(double)  # all rows, as unlabelled ones are seen too
        model.fit(scaled.transform(double)[rows] if standardise else double[rows], labels[rows, c])
        expected = model.decision_function(
            scaled.transform(new.astype(np.float64)) if standardise else new.astype(np.float64)
        )
        np.testing.assert_allclose(probe_logits(probe, new)[:, c], expected, atol=0.02 * expected.std())


def test_the_settings_of_the_best_validation_map_are_chosen() -> None:
    features, labels = _data(120, 60, seed=2, noise=2.0)
    val_features, val_labels = _data(200, 60, seed=3, noise=2.0)
    every = np.ones_like(labels), np.ones_like(val_labels)
    found = choose_probe(features, labels, every[0], [0.01, 1.0], (val_features, val_labels, every[1]))
    results = {}
    for standardise in (False, True):
        for weight in ("none", "balanced"):
            for c in (0.01, 1.0):
                scores = np.zeros(val_labels.shape)
                for k in range(4):
                    steps = [StandardScaler()] if standardise else []
                    model = make_pipeline(
                        *steps,
                        LogisticRegression(
                            C=c, class_weight=None if weight == "none" else weight, tol=1e-8, max_iter=5000
                        ),
                    )
                    scores[:, k] = model.fit(features.astype(np.float64), labels[:, k]).decision_function(
                        val_features.astype(np.float64)
                    )
                results[standardise, weight, c] = float(mean_over(average_precision(val_labels, scores)))
    assert found.selection_map == pytest.approx(max(results.values()), abs=2e-3)
    assert results[found.settings.standardise, found.settings.class_weight, found.settings.c] == pytest.approx(
        max(results.values()), abs=2e-3
    )
    assert max(results.values()) - min(results.values()) > 0.01, "the choice must matter"
    assert found.chosen_on == "val"
    assert found.document()["c"] == found.settings.c


def test_a_refit_keeps_the_choice_and_the_scores_of_the_rows_that_made_it() -> None:
    (features, labels), (val_features, val_labels) = _data(90, 40, seed=2), _data(60, 40, seed=3)
    known, val_known = (
        np.random.default_rng(seed).random(item.shape) > 0.2 for seed, item in ((4, labels), (5, val_labels))
    )
    validation = (val_features, val_labels & val_known, val_known)
    first = choose_probe(features, labels & known, known, [0.01, 1.0], validation)
    found = choose_probe(features, labels & known, known, [0.01, 1.0], validation, refit=True)
    assert (found.settings, found.selection_map, found.chosen_on) == (first.settings, first.selection_map, "val")
    assert found.held_out is not None
    np.testing.assert_array_equal(found.held_out, probe_scores(first.probe, val_features))
    np.testing.assert_array_equal(found.held_out_known, val_known)
    both, targets, seen = (
        np.concatenate(pair) for pair in ((features, val_features), (labels, val_labels), (known, val_known))
    )
    logits = probe_logits(found.probe, both)
    for c in range(labels.shape[1]):
        rows = seen[:, c]
        weight = None if found.settings.class_weight == "none" else "balanced"
        model = LogisticRegression(C=found.settings.c, class_weight=weight, tol=1e-9, max_iter=10000)
        double = both.astype(np.float64)
        if found.settings.standardise:
            double = StandardScaler().fit_transform(double)
        expected = model.fit(double[rows], targets[rows, c]).decision_function(double)
        factor = (logits[:, c] @ expected) / (expected @ expected)
        np.testing.assert_allclose(logits[:, c], factor * expected, atol=0.02 * expected.std())


def test_out_of_fold_scores_are_those_of_scikit_learn_without_the_fold() -> None:
    features, labels = _data(120, 20, seed=6, noise=2.0)
    known = np.random.default_rng(7).random(labels.shape) > 0.2
    labels, folds = labels & known, np.random.default_rng(8).integers(3, size=len(labels))
    first = choose_probe(features, labels, known, [0.1], None)
    found = score_out_of_fold(first, features, labels, known, folds)
    assert found.probe is first.probe
    assert found.held_out is not None
    np.testing.assert_array_equal(found.held_out_known, known)
    logits = np.log(found.held_out / (1 - found.held_out.astype(np.float64)))
    for fold in range(3):
        inside, outside = folds != fold, folds == fold
        for c in range(labels.shape[1]):
            rows = inside & known[:, c]
            weight = None if first.settings.class_weight == "none" else "balanced"
            steps = [StandardScaler().fit(features[inside])] if first.settings.standardise else []
            model = LogisticRegression(C=first.settings.c, class_weight=weight, tol=1e-9, max_iter=10000)
            turned = steps[0].transform(features) if steps else features
            expected = model.fit(turned[rows], labels[rows, c]).decision_function(turned[outside])
            assert np.corrcoef(logits[outside, c], expected)[0, 1] > 0.999


def test_folds_divide_no_group_and_spread_those_with_a_positive() -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(20, size=200)
    label, known = np.isin(groups, [1, 4, 9]) & (rng.random(200) < 0.5), rng.random(200) < 0.8
    fold = class_folds(label, known, groups)
    assert ((fold == -1) == ~known).all()
    for group in range(20):
        assert len(set(fold[known & (groups == group)])) == 1
    assert {fold[known & label & (groups == group)][0] for group in (1, 4, 9)} == {0, 1, 2}
    np.testing.assert_array_equal(class_folds(label, known), class_folds(label, known, np.arange(200)))


def test_copies_in_one_group_do_not_make_the_probe_look_good() -> None:
    rng = np.random.default_rng(1)
    features, labels = rng.normal(size=(60, 30)).repeat(3, axis=0), (rng.random((60, 4)) < 0.3).repeat(3, axis=0)
    every, groups = np.ones_like(labels), np.repeat(np.arange(60), 3)
    alone = choose_probe(features, labels, every, [1.0], None)
    together = choose_probe(features, labels, every, [1.0], None, groups=groups)
    assert alone.selection_map > 0.7, "labels are noise, and the copies of a row are known"
    assert together.selection_map < 0.5
    assert together.held_out_known is not None
    whole = np.zeros_like(labels)
    whole[groups < 2, 0] = True
    with_one = choose_probe(features, whole | labels & (np.arange(4) > 0), every, [1.0], None, groups=groups // 3)
    assert with_one.held_out_known is not None
    assert not with_one.held_out_known[:, 0].any(), "all positives of class 0 are of one group"


def test_averaging_scores_over_views_is_the_score_of_the_mean_feature() -> None:
    features, labels = _data(80, 30)
    probe = fit_probe(features, labels, np.ones_like(labels), Settings(True, "none", 1.0))
    views = np.stack([_data(40, 30, seed=seed)[0] for seed in range(5)], axis=1)
    mean_of_logits = np.mean([probe_logits(probe, views[:, v]) for v in range(5)], axis=0)
    np.testing.assert_allclose(probe_logits(probe, views.mean(axis=1)), mean_of_logits, atol=1e-4)


def test_classes_without_positives_or_without_negatives_get_a_constant() -> None:
    features, labels = _data(60, 20)
    labels[:, 1], labels[:, 2] = False, True
    known = np.ones_like(labels)
    known[:, 3] = False
    scores = probe_scores(fit_probe(features, labels & known, known, Settings(False, "balanced", 1.0)), features)
    assert np.ptp(scores[:, 0]) > 0.1
    assert (np.ptp(scores[:, 1:], axis=0) == 0).all()
    assert scores[0, 1] < 0.05
    assert scores[0, 2] > 0.95
    assert scores[0, 3] == 0.5
    chosen = choose_probe(features, labels & known, known, [0.1], None)
    assert np.isfinite(probe_scores(chosen.probe, features)).all()


def test_unknown_entries_have_no_effect() -> None:
    features, labels = _data(80, 30)
    known = np.random.default_rng(4).random(labels.shape) > 0.3
    first, second = (choose_probe(features, y, known, [0.1, 1.0], None) for y in (labels & known, labels | ~known))
    np.testing.assert_array_equal(first.probe.weight, second.probe.weight)
    np.testing.assert_array_equal(first.held_out, second.held_out)


@pytest.mark.slow
@pytest.mark.parametrize("strength", [1e-3, 1e4])
def test_float32_scores_keep_the_ranks_of_the_logits(strength: float) -> None:
    features, labels = _data(300, 40, seed=5, noise=0.1)
    new, new_labels = _data(400, 40, seed=6, noise=0.1)
    every = np.ones_like(labels)
    chosen = choose_probe(10 * features, labels, every, [strength], (10 * new, new_labels, np.ones_like(new_labels)))
    plain = fit_probe(10 * features, labels, every, chosen.settings)
    logits, scores = probe_logits(plain, 10 * new), probe_scores(chosen.probe, 10 * new)
    if strength > 1:
        assert np.abs(logits).max() > 40
        assert (expit(logits).astype(np.float32) == 1).sum() > 10, "a plain float32 sigmoid makes equal scores"
    np.testing.assert_array_equal(logits > 0, scores > 0.5)
    np.testing.assert_allclose(average_precision(new_labels, scores), average_precision(new_labels, logits), atol=1e-3)
    for c in range(4):
        assert len(np.unique(scores[:, c])) > 0.99 * len(new)


def test_folds_are_stratified_and_cover_known_rows_once() -> None:
    label, known = np.arange(50) % 7 == 0, np.arange(50) % 5 != 0
    fold = class_folds(label, known)
    assert (fold[~known] == -1).all()
    for rows in (label & known, ~label & known):
        sizes = np.bincount(fold[rows], minlength=FOLDS)
        assert sizes.max() - sizes.min() <= 1


def test_held_out_scores_know_nothing_of_their_own_labels() -> None:
    """Labels without any relation to the features: fitted rows are ranked perfectly, held-out rows no better than
    chance.
    """
    rng = np.random.default_rng(8)
    features, labels = rng.normal(size=(150, 400)).astype(np.float32), rng.random((150, 6)) < 0.3
    chosen = choose_probe(features, labels, np.ones_like(labels), [1.0], None)
    assert chosen.held_out is not None
    assert chosen.chosen_on == "folds"
    assert float(mean_over(average_precision(labels, probe_scores(chosen.probe, features)))) > 0.99
    assert float(mean_over(average_precision(labels, chosen.held_out))) < 0.42
    # the choice's fits start elsewhere
    assert chosen.selection_map == pytest.approx(float(mean_over(average_precision(labels, chosen.held_out))), abs=2e-5)


def test_a_class_with_one_positive_is_not_used_for_the_choice_but_is_fitted() -> None:
    features, labels = _data(60, 20, seed=9)
    labels[:, 1] = np.arange(60) == 3
    chosen = choose_probe(features, labels, np.ones_like(labels), [0.1, 1.0], None)
    assert chosen.held_out_known is not None
    assert not chosen.held_out_known[:, 1].any()
    assert chosen.held_out_known[:, 0].all()
    assert np.argmax(probe_scores(chosen.probe, features)[:, 1]) == 3


def test_validation_rows_without_positives_lead_to_folds() -> None:
    features, labels = _data(60, 20)
    nothing = np.zeros((10, 4), dtype=bool)
    assert (
        choose_probe(features, labels, np.ones_like(labels), [1.0], (features[:10], nothing, ~nothing)).chosen_on
        == "folds"
    )


def test_a_constant_feature_does_no_harm() -> None:
    features, labels = _data(60, 20)
    features[:, 3], features[:, 4] = 0.1, 0.0
    for standardise in (False, True):
        scores = probe_scores(
            fit_probe(features, labels, np.ones_like(labels), Settings(standardise, "none", 1.0)), features
        )
        assert np.isfinite(scores).all()


def test_with_very_many_classes_the_settings_are_chosen_on_a_spread_of_them() -> None:
    features, few = _data(60, 20)
    labels = np.concatenate([few[:, :1]] * (MOST_CLASSES + 30), axis=1)
    labels[0, :30] = ~labels[0, :30]
    found = choose_probe(features, labels, np.ones_like(labels), [0.1, 1.0], (features, labels, np.ones_like(labels)))
    assert found.probe.weight.shape == (20, MOST_CLASSES + 30)
    assert np.isfinite(found.selection_map)
    # solved at once: other roundings
    np.testing.assert_allclose(found.probe.weight[:, 30], found.probe.weight[:, -1], atol=1e-4)
