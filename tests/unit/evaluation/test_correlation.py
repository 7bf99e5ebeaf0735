"""The label graph against the labels: P(j | i), Spearman by row, and what is said about the tail."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr, ttest_1samp

from capnet.evaluation.correlation import (
    MIN_TEST_POSITIVES,
    check_premise,
    row_spearman,
    strongest_neighbours,
    without_diagonal,
)
from capnet.model.graph import cooccurrence


def brute_cooccurrence(labels: np.ndarray, known: np.ndarray) -> np.ndarray:
    """P(j | i) by counting pictures one by one."""
    pictures, classes = labels.shape
    result = np.zeros((classes, classes))
    for i in range(classes):
        for j in range(classes):
            shown = looked_at = 0
            for picture in range(pictures):
                if labels[picture, i] and known[picture, i] and known[picture, j]:
                    looked_at += 1
                    shown += int(labels[picture, j])
            result[i, j] = shown / looked_at if looked_at else 0.0
    return result


def scenes(rng: np.random.Generator, pictures: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels that appear in groups of three, and which entries are known: nearly all."""
    scene = rng.integers(0, -(-classes // 3), pictures)
    inside = scene[:, None] == (np.arange(classes) // 3)[None, :]
    labels = rng.random((pictures, classes)) < np.where(inside, 0.6, 0.04)
    return labels, (rng.random(labels.shape) >= 0.05) | labels


def test_cooccurrence_equals_counting_with_unknown_labels_left_out() -> None:
    labels, known = scenes(np.random.default_rng(0), 60, 7)
    labels[:, 3] = False
    result = cooccurrence(labels, known)
    np.testing.assert_allclose(result, brute_cooccurrence(labels, known), atol=1e-12)
    assert not result[3].any(), "a class without pictures has no companions"
    without_first = known.copy()
    without_first[:, 0] = False
    assert not cooccurrence(labels, without_first)[0].any(), (
        "unknown labels do not count, whatever the label column says"
    )


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_row_spearman_equals_scipy_with_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = rng.integers(0, 4, (20, 9)).astype(float), rng.random((20, 9))
    expected = [spearmanr(a, b).statistic for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(row_spearman(first, second), expected, atol=1e-12)


def test_row_spearman_is_nan_for_a_constant_row_and_for_one_column() -> None:
    assert np.isnan(row_spearman(np.ones((1, 5)), np.arange(5.0)[None, :])).all()
    assert np.isnan(row_spearman(np.ones((3, 1)), np.ones((3, 1)))).all()


def test_without_diagonal_keeps_the_order() -> None:
    assert without_diagonal(np.arange(9).reshape(3, 3)).tolist() == [[1, 2], [3, 5], [6, 7]]
    assert without_diagonal(np.ones((1, 1))).shape == (1, 0)


def test_premise_equals_brute_force_over_usable_rows() -> None:
    rng = np.random.default_rng(3)
    classes = 18
    train, test = scenes(rng, 200, classes), scenes(rng, 150, classes)
    train[0][:, 5] = False  # training never saw class 5: its row orders nothing
    test[0][:, 7] = False
    test[0][:2, 7] = True  # too few test pictures
    adjacency = np.abs(rng.normal(size=(classes, classes)))
    adjacency[adjacency < 0.3] = 0.0
    buckets = np.array(["head"] * 4 + ["medium"] * 6 + ["tail"] * 8)
    premise = check_premise(adjacency, train, test, buckets)

    target, counts = brute_cooccurrence(*test), brute_cooccurrence(*train)
    expected: dict[str, list[tuple[float, float]]] = {name: [] for name in ("all", "head", "medium", "tail")}
    for i in range(classes):
        if (test[0][:, i] & test[1][:, i]).sum() < MIN_TEST_POSITIVES:
            continue
        others = [j for j in range(classes) if j != i]
        graph = spearmanr(adjacency[i, others], target[i, others]).statistic
        own = 0.0 if len(set(counts[i, others])) == 1 else spearmanr(counts[i, others], target[i, others]).statistic
        for name in ("all", buckets[i]):
            expected[name].append((graph, own))
    assert set(premise) == set(expected)
    for name, pairs in expected.items():
        assert premise[name].classes == len(pairs)
        assert premise[name].graph == pytest.approx(np.mean([a for a, _ in pairs]), abs=1e-12)
        assert premise[name].counts == pytest.approx(np.mean([b for _, b in pairs]), abs=1e-12)
        assert premise[name].difference == pytest.approx(premise[name].graph - premise[name].counts, abs=1e-12)
        ends = (premise[name].low, premise[name].high)
        if len(pairs) >= 5:
            student = ttest_1samp([a - b for a, b in pairs], 0.0).confidence_interval(0.95)
            assert ends == pytest.approx((student.low, student.high), abs=1e-12)
        else:
            assert np.isnan(ends).all()
    assert [premise[name].classes for name in ("head", "medium", "tail")] == [4, 5, 8]
    assert premise["medium"].left_out == 1


def test_the_diagonal_of_the_graph_has_no_effect() -> None:
    rng = np.random.default_rng(4)
    train, test = scenes(rng, 80, 9), scenes(rng, 80, 9)
    adjacency = rng.random((9, 9))
    other = adjacency.copy()
    np.fill_diagonal(other, 99.0)
    buckets = np.array(["tail"] * 9)
    assert check_premise(adjacency, train, test, buckets) == check_premise(other, train, test, buckets)


def test_verdict_names_the_better_source_or_says_that_it_cannot() -> None:
    rng = np.random.default_rng(5)
    classes = 24
    test = scenes(rng, 500, classes)
    noise = (rng.random((400, classes)) < 0.2, np.ones((400, classes), dtype=bool))
    buckets = np.array(["tail"] * classes)
    truth = cooccurrence(*test)
    assert check_premise(truth, noise, test, buckets)["tail"].verdict == "graph"
    assert check_premise(rng.random((classes, classes)), test, test, buckets)["tail"].verdict == "counts"
    assert check_premise(truth, test, test, buckets)["tail"].verdict == "even"
    few = np.array(["head"] * (classes - 4) + ["tail"] * 4)
    assert check_premise(truth, noise, test, few)["tail"].verdict == "unknown"
    assert "medium" not in check_premise(truth, noise, test, few)


def test_premise_without_any_usable_row_is_unknown() -> None:
    nothing = (np.zeros((5, 3), dtype=bool), np.ones((5, 3), dtype=bool))
    premise = check_premise(np.eye(3), nothing, nothing, np.array(["tail"] * 3))["tail"]
    assert (premise.classes, premise.left_out, premise.verdict) == (0, 3, "unknown")


def test_strongest_neighbours_are_sorted_without_the_class_itself_and_without_zeros() -> None:
    matrix = np.array([[9.0, 0.2, 0.5, 0.0], [0.1, 9.0, 0.1, 0.1], [0.0, 0.0, 9.0, 0.0], [3.0, 2.0, 1.0, 0.0]])
    neighbours = strongest_neighbours(matrix, 2)
    assert neighbours == [[(2, 0.5), (1, 0.2)], [(0, 0.1), (2, 0.1)], [], [(0, 3.0), (1, 2.0)]]
