"""Stratified hold-out: exact size, label shares closer than chance, groups together."""

from __future__ import annotations

import numpy as np
import pytest

from capnet.data.splits.stratify import stratified_holdout


def long_tailed(n_rows: int, n_classes: int, seed: int, blank: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    labels = rng.random((n_rows, n_classes)) < 0.4 / np.arange(1, n_classes + 1)
    labels[rng.random(n_rows) < blank] = False
    return labels


def error(labels: np.ndarray, held_out: np.ndarray, share: float) -> float:
    """Mean distance of the held-out positives per class from their due number."""
    return float(np.abs(labels[held_out].sum(axis=0) - share * labels.sum(axis=0)).mean())


@pytest.mark.parametrize(
    ("n_rows", "n_classes", "blank"), [(2000, 20, 0.0), (500, 3, 0.7), (3000, 1000, 0.1), (7, 2, 0.0)]
)
@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_size_is_exact_and_labels_keep_their_shares_better_than_chance(
    n_rows: int, n_classes: int, blank: float, share: float
) -> None:
    labels = long_tailed(n_rows, n_classes, n_rows, blank)
    size = round(share * n_rows)
    held_out = stratified_holdout(labels, size, seed=0)
    assert held_out.sum() == size
    if n_rows > 100:
        rng = np.random.default_rng(0)
        chance = [error(labels, rng.permutation(n_rows) < size, share) for _ in range(20)]
        assert error(labels, held_out, share) < 0.6 * np.mean(chance)
        blanks = ~labels.any(axis=1)
        assert abs((held_out & blanks).sum() - share * blanks.sum()) <= 0.1 * n_rows


def test_two_equal_halves_are_found_where_they_exist() -> None:
    """Every label pattern twice: a perfect division exists, and Sechidis' rule finds it."""
    patterns = long_tailed(300, 12, 1)
    labels = np.concatenate([patterns, patterns])
    held_out = stratified_holdout(labels, 300, seed=4)
    assert error(labels, held_out, 0.5) <= 1.0


def test_a_lone_positive_stays_in_train_and_the_third_goes() -> None:
    for count, expected in ((1, 0), (2, 0), (3, 1), (5, 1), (10, 2)):
        labels = np.zeros((200, 1), dtype=bool)
        labels[:count] = True
        assert stratified_holdout(labels, 40, seed=count)[:count].sum() == expected


@pytest.mark.parametrize("seed", range(6))
def test_groups_stay_together_and_the_size_is_not_exceeded(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = long_tailed(800, 15, seed, blank=0.3)
    groups = rng.integers(0, 150, 800)
    held_out = stratified_holdout(labels, 160, seed, groups)
    for group in np.unique(groups):
        assert len(set(held_out[groups == group])) == 1
    assert 150 <= held_out.sum() <= 160
    chance = np.mean([error(labels, np.isin(groups, rng.permutation(150)[:30]), 0.2) for _ in range(20)])
    assert error(labels, held_out, 0.2) < chance


def test_a_group_larger_than_the_part_stays_in_train() -> None:
    labels = np.ones((10, 1), dtype=bool)
    held_out = stratified_holdout(labels, 2, 0, np.array([0] * 8 + [1, 2]))
    assert held_out.tolist() == [False] * 8 + [True, True]


def test_nothing_wanted_and_nothing_there() -> None:
    assert not stratified_holdout(np.ones((4, 2), dtype=bool), 0, 0).any()
    assert stratified_holdout(np.zeros((0, 2), dtype=bool), 0, 0).shape == (0,)
    assert stratified_holdout(np.ones((4, 2), dtype=bool), 4, 0).all()


def test_the_seed_decides() -> None:
    labels = long_tailed(400, 8, 0)
    first, again, other = (stratified_holdout(labels, 80, seed) for seed in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()


def test_sparse_labels_give_the_same_rows() -> None:
    from scipy.sparse import csr_array

    labels = long_tailed(500, 30, 3, blank=0.3)
    groups = np.random.default_rng(3).integers(0, 120, 500)
    for optional in (None, groups):
        assert (
            stratified_holdout(csr_array(labels), 100, 2, optional) == stratified_holdout(labels, 100, 2, optional)
        ).all()


@pytest.mark.parametrize("sizes", [(10, 15, 15, 20), (2, 9, 24, 25), (20, 20, 12, 8)])
def test_a_group_that_fits_is_held_out_whatever_comes_first(sizes: tuple[int, ...]) -> None:
    groups = np.repeat(np.arange(len(sizes)), sizes)
    for seed in range(20):
        held_out = stratified_holdout(long_tailed(60, 5, seed), 12, seed, groups)
        assert 0 < held_out.sum() <= 12
