"""Planted mistakes are found, by the definition in plain loops; what nobody knows is not asked."""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from capnet.evaluation.doubtful import Doubt, doubtful_labels


def made(images: int = 600, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """True labels of three classes, and calibrated-looking probabilities of a good model."""
    rng = np.random.default_rng(seed)
    rates = np.array([0.4, 0.15, 0.05])
    truth = rng.random((images, 3)) < rates
    return truth, expit(np.where(truth, 2.5, -3.0) + rng.standard_normal((images, 3)))


def by_definition(labels: np.ndarray, known: np.ndarray, p: np.ndarray) -> set[tuple[int, int]]:
    result = set()
    for c in range(labels.shape[1]):
        present = [p[i, c] for i in range(len(labels)) if known[i, c] and labels[i, c]]
        absent = [1 - p[i, c] for i in range(len(labels)) if known[i, c] and not labels[i, c]]
        for i in range(len(labels)):
            if not known[i, c]:
                continue
            if not labels[i, c] and present and p[i, c] >= np.mean(present):
                result.add((i, c))
            if labels[i, c] and absent and 1 - p[i, c] >= np.mean(absent):
                result.add((i, c))
    return result


def test_it_is_the_definition_and_unknown_labels_are_not_asked() -> None:
    truth, p = made()
    rng = np.random.default_rng(1)
    labels, known = truth ^ (rng.random(truth.shape) < 0.03), rng.random(truth.shape) < 0.9
    doubts = doubtful_labels(labels & known, known, p, 10_000)
    assert {(doubt.row, doubt.column) for doubt in doubts} == by_definition(labels & known, known, p)
    assert all(known[doubt.row, doubt.column] for doubt in doubts)
    assert all(doubt.labelled == labels[doubt.row, doubt.column] for doubt in doubts)
    assert all(doubt.probability == p[doubt.row, doubt.column] for doubt in doubts)


def test_planted_mistakes_come_first_and_both_kinds_take_turns() -> None:
    truth, p = made(2000)
    rng = np.random.default_rng(2)
    labels = truth.copy()
    for c in range(3):  # a tenth of the positives forgotten, and as many given to others
        positives, negatives = np.flatnonzero(truth[:, c]), np.flatnonzero(~truth[:, c])
        number = len(positives) // 10
        labels[rng.choice(positives, number, replace=False), c] = False
        labels[rng.choice(negatives, number, replace=False), c] = True
    planted = labels != truth
    doubts = doubtful_labels(labels, np.ones_like(labels), p, 100)
    assert [doubt.labelled for doubt in doubts[:6]] == [False, True] * 3
    assert np.mean([planted[doubt.row, doubt.column] for doubt in doubts]) > 0.9, "by chance 4 %"
    assert {doubt.column for doubt in doubts} == {0, 1, 2}, "rare classes have their place"


def test_a_class_without_positives_or_without_negatives_raises_no_doubt() -> None:
    labels = np.array([[True, False], [True, False], [True, False]])
    p = np.array([[0.1, 0.9], [0.05, 0.8], [0.9, 0.1]])
    assert doubtful_labels(labels, np.ones_like(labels), p, 10) == []
    labels[0] = False, True
    assert doubtful_labels(labels, np.ones_like(labels), p, 1) == [Doubt(1, 0, True, 0.05)]
    assert doubtful_labels(labels[:0], labels[:0], p[:0], 5) == []
