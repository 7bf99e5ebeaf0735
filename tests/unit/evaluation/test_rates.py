"""Exact intervals of recall and precision: against SciPy's binomial test, brute force and simulated test sets."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest
from sklearn.metrics import precision_score, recall_score

from capnet.contracts import Classes
from capnet.contracts.classes import ClassInfo
from capnet.evaluation.rates import (
    Size,
    decision_rates,
    decisions_document,
    estimated_size,
    proportion_interval,
    smallest_size,
)
from capnet.evaluation.split_rows import SplitRows


@pytest.mark.parametrize(("hits", "n"), [(0, 1), (1, 1), (0, 5), (5, 5), (12, 13), (62, 84), (899, 1000)])
def test_interval_is_that_of_clopper_and_pearson(hits: int, n: int) -> None:
    expected = binomtest(hits, n).proportion_ci(0.95, method="exact")
    assert proportion_interval(hits / n, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_labels_of_equal_groups_count_as_the_groups_do() -> None:
    for totals, size in (([1, 1, 0, 1], 3), ([4, 4, 0], 2), ([100, 1], 101**2 / 10001)):
        assert smallest_size(np.zeros(len(totals)), np.array(totals)) == pytest.approx(size)


def test_size_is_estimated_from_how_much_groups_differ() -> None:
    alone, hits = np.ones(50), np.arange(50) % 4 > 0
    assert estimated_size(hits, alone) == pytest.approx(50), "labels alone are all independent"
    split, apart = np.full(20, 2), np.repeat([0, 4], 10)
    assert estimated_size(split, np.full(20, 4)) == 20, "no group differs: as if each were one"
    assert estimated_size(apart, np.full(20, 4)) == pytest.approx(20 * (1.9905 / 2.0930) ** 2, rel=1e-3), (
        "t of 79 and 19"
    )
    assert estimated_size(np.full(20, 4), np.full(20, 4)) == 20, "all right: no difference to estimate from"


def rows(labels: np.ndarray, known: np.ndarray, scores: np.ndarray, groups: list[str]) -> SplitRows:
    return SplitRows("test", pd.DataFrame({"group": groups}), labels, known, {"capnet": scores})


def test_rates_of_several_classes_are_scikit_learns_on_known_entries() -> None:
    rng = np.random.default_rng(0)
    labels, known, decided = rng.random((3, 200, 5)) < np.array([0.2, 0.8, 0.4])[:, None, None]
    test = rows(labels, known, decided.astype(np.float32), [""] * 200)
    found = decision_rates(test, decided, np.arange(200), np.array([1, 3]), estimated_size)
    chosen = known[:, [1, 3]]
    truth, given = labels[:, [1, 3]][chosen], decided[:, [1, 3]][chosen]
    assert (found["true"], found["predicted"]) == (truth.sum(), given.sum())
    assert found["recall"] == pytest.approx(recall_score(truth, given))
    assert found["precision"] == pytest.approx(precision_score(truth, given))
    assert found["recall_low"] < found["recall"] < found["recall_high"]
    nothing = decision_rates(test, np.zeros_like(decided), np.arange(200), np.array([1, 3]), estimated_size)
    assert "precision" not in nothing, "no label was given"
    assert nothing["recall"] == nothing["recall_low"] == 0
    assert nothing["recall_high"] > 0


@pytest.mark.parametrize("size", [smallest_size, estimated_size])
@pytest.mark.parametrize("alike", [False, True], ids=["labels alone", "groups decided as one"])
def test_intervals_hold_the_true_recall_in_simulated_groups(alike: bool, size: Size) -> None:
    rng, truth, held = np.random.default_rng(1), 0.9, 0
    for _ in range(400):
        units = np.repeat(np.arange(30), rng.integers(1, 9, 30))
        hits = (rng.random(30) < truth)[units] if alike else rng.random(len(units)) < truth
        test = rows(np.ones((len(units), 1), bool), np.ones((len(units), 1), bool), hits[:, None], [""] * len(units))
        found = decision_rates(test, hits[:, None], units, np.array([0]), size)
        held += found["recall_low"] <= truth <= found["recall_high"]
    assert held >= 0.93 * 400


@pytest.mark.parametrize("number", [8, 20, 60])
def test_a_few_groups_with_most_labels_seldom_show_a_recall_that_is_not_kept(number: int) -> None:
    """The estimate alone, from how much these few differ, claimed it in 8 to 24 of 100 test sets."""
    rng, truth, claimed, held = np.random.default_rng(2), 0.9, 0, 0
    for _ in range(400):
        totals = np.where(np.arange(number) < 3, 40, rng.integers(1, 4, number))
        hits = totals * (rng.random(number) < truth)
        low, high = proportion_interval(hits.sum() / totals.sum(), estimated_size(hits, totals))
        claimed += low > truth
        held += low <= truth <= high
    assert claimed <= 0.04 * 400
    assert held >= 0.95 * 400


def test_critical_classes_are_measured_apart() -> None:
    items = tuple(ClassInfo(name, name, name, name == "mass", 5, "tail") for name in ("mass", "cyst"))
    labels = np.array([[1, 0], [1, 1], [0, 1], [0, 0]], bool)
    scores = np.array([[0.5, 0.1], [0.1, 0.9], [0.8, 0.9], [0.1, 0.1]], np.float32)
    test = rows(labels, np.ones_like(labels), scores, ["a", "a", "b", "b"])
    content = decisions_document(test, np.array([0.5, 0.5]), Classes(items))
    assert list(content) == ["all", "tail", "critical", "not_critical"]
    assert (content["critical"]["recall"], content["critical"]["precision"]) == (0.5, 0.5)
    assert content["not_critical"]["recall"] == 1
    alone = rows(labels, np.ones_like(labels), scores, ["a"] * 4)
    assert "recall_low" not in decisions_document(alone, np.array([0.5, 0.5]), Classes(items))["all"]
    one = proportion_interval(0.5, 1)
    assert (content["critical"]["recall_low"], content["critical"]["recall_high"]) == pytest.approx(one), "one group"
