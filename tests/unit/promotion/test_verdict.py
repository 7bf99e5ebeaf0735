"""The gate's arithmetic: against scikit-learn on the same draws, and over many simulated promotions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from capnet.promotion.compared_rows import ComparedRows
from capnet.promotion.non_inferiority import by_interval, coverage, minimum, non_inferiority
from capnet.promotion.policy import Minimum, Policy
from capnet.promotion.verdict import LIKELY, NO_INTERVAL, Rule, Verdict

Floats = NDArray[np.floating]
CLASSES, ROWS = 40, 2000
PREVALENCE = np.geomspace(0.3, 0.01, CLASSES)
BUCKETS = ["head"] * 15 + ["medium"] * 10 + ["tail"] * 15
POLICY = Policy(draws=400)


def draw(rng: np.random.Generator, pictures: int) -> tuple[NDArray[np.bool_], Floats, Floats, Floats]:
    """Labels, noise that both models share (the same pictures are hard) and noise of each, all [picture, class]."""
    shape = (pictures, CLASSES)
    return (
        rng.random(shape) < PREVALENCE,
        rng.standard_normal(shape),
        rng.standard_normal(shape),
        rng.standard_normal(shape),
    )


def score(labels: NDArray[np.bool_], shared: Floats, own: Floats, skill: Floats | float) -> Floats:
    return (1 / (1 + np.exp(-(labels * skill + np.sqrt(0.8) * shared + np.sqrt(0.2) * own - 3)))).astype(np.float32)


def rows(labels: NDArray[np.bool_], critical: tuple[int, ...] = ()) -> ComparedRows:
    n = labels.shape[1]
    names, buckets = [f"class {c}" for c in range(n)], BUCKETS if n == CLASSES else ["head", *["tail"] * (n - 1)]
    return ComparedRows(
        labels, np.ones_like(labels), np.arange(len(labels)), names, buckets, np.isin(np.arange(n), critical)
    )


def mean_ap(labels: NDArray[np.bool_], scores: Floats, chosen: slice = slice(None)) -> float:
    return float(np.mean([average_precision_score(labels[:, c], scores[:, c]) for c in np.arange(CLASSES)[chosen]]))


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [
        (-0.009, 0.02, "pass"),
        (-0.011, 0.02, "inconclusive"),
        (-0.05, -0.009, "inconclusive"),
        (-0.05, -0.011, "fail"),
        (-0.01, -0.01, "inconclusive"),
    ],
)
def test_three_outcomes(low: float, high: float, outcome: str) -> None:
    assert by_interval(low, high, 0.01) == outcome


@pytest.mark.slow
def test_rules_agree_with_scikit_learn_on_the_same_draws() -> None:
    rng = np.random.default_rng(3)
    labels = rng.random((60, 3)) < [0.5, 0.3, 0.3]
    ours, theirs = (rng.random((60, 3)).astype(np.float32) + 0.3 * labels for _ in range(2))
    result = {
        rule.name: rule
        for rule in non_inferiority(rows(labels, critical=(2,)), ours, theirs, Policy(draws=200, seed=7))
    }
    assert set(result) == {"mAP", "tail", "critical class class 2"}

    def differences(weights: Floats) -> list[float]:
        ap = [
            [average_precision_score(labels[:, c], scores[:, c], sample_weight=weights) for c in range(3)]
            for scores in (ours, theirs)
        ]
        each = np.array(ap[0]) - np.array(ap[1])
        return [float(each.mean()), float(each[1:].mean()), float(each[2])]

    generator = np.random.default_rng(7)
    picked = generator.integers(0, 60, (200, 60))
    samples = np.array([differences(np.bincount(row, minlength=60).astype(float)) for row in picked])
    points = differences(np.ones(60))
    for column, name in enumerate(result):
        low, high = np.quantile(samples[:, column], [0.025, 0.975]) + points[column] - samples[:, column].mean()
        assert (result[name].difference, result[name].low, result[name].high) == pytest.approx(
            (points[column], low, high), abs=1e-6
        )
        assert result[name].difference == pytest.approx(result[name].value - result[name].against)


def weaker(worse_by: float) -> float:
    """The skill at which the mean AP of a model is lower by this much in the population (30,000 pictures), the
    champion having 2.5.
    """
    population = draw(np.random.default_rng(99), 30_000)
    champion = mean_ap(population[0], score(*population[:2], population[2], 2.5))
    low, high = 1.5, 2.5
    for _ in range(9):
        middle = (low + high) / 2
        fallen = champion - mean_ap(population[0], score(*population[:2], population[3], middle))
        low, high = (low, middle) if fallen < worse_by else (middle, high)
    return (low + high) / 2


@pytest.mark.slow
def test_twenty_worse_and_twenty_equal_candidates() -> None:
    """Worse by twice the margin of mAP: at most one passes. Equal: none is red. Two critical classes are asked about,
    too.
    """
    skill = weaker(2 * POLICY.may_fall.mAP)
    colours: dict[str, list[str]] = {"worse": [], "equal": []}
    for seed in range(20):
        for kind, own_skill in (("worse", skill), ("equal", 2.5)):
            labels, shared, one, other = draw(np.random.default_rng([seed, len(kind), ord(kind[0])]), ROWS)
            rules = non_inferiority(
                rows(labels, critical=(5, 35)),
                score(labels, shared, one, own_skill),
                score(labels, shared, other, 2.5),
                POLICY,
            )
            colours[kind].append(Verdict(tuple(rules)).colour)
    assert colours["worse"].count("green") <= 1, colours
    assert "red" not in colours["equal"], colours
    assert "red" in colours["worse"], "a gate that never refuses would pass this test"


def test_better_in_the_mean_but_worse_in_the_tail_fails_by_the_tail_alone() -> None:
    labels, shared, one, other = draw(np.random.default_rng(1), ROWS)
    skill = np.where(np.array(BUCKETS) == "tail", 2.0, 4.5)
    result = {
        rule.name: rule
        for rule in non_inferiority(
            rows(labels), score(labels, shared, one, skill), score(labels, shared, other, 2.5), POLICY
        )
    }
    assert result["mAP"].outcome == "pass"
    assert result["mAP"].difference > 0
    assert result["tail"].outcome == "fail"
    verdict = Verdict(tuple(result.values()))
    assert verdict.colour == "red"
    assert [rule.name for rule in verdict.broken] == ["tail"]
    assert f"{100 * result['tail'].difference:+.1f}" in str(result["tail"])
    assert "may be 3.0 lower" in str(result["tail"])


def test_a_critical_class_that_is_unknown_wherever_it_is_not_a_positive_is_left_to_a_person() -> None:
    """Both models rank its positives perfectly, as any model does."""
    labels, shared, one, other = draw(np.random.default_rng(1), ROWS)
    compared = rows(labels, critical=(0,))
    compared = replace(compared, known=labels | (np.arange(CLASSES) != 0))
    scores = (score(labels, shared, own, skill) for own, skill in ((one, 0.0), (other, 5.0)))
    rule = next(rule for rule in non_inferiority(compared, *scores, POLICY) if "critical" in rule.name)
    assert (rule.outcome, rule.note) == ("inconclusive", "positive or negative test pictures are missing")


def test_a_critical_class_with_few_positives_is_left_to_a_person() -> None:
    labels, shared, one, other = draw(np.random.default_rng(1), ROWS)
    labels[:, 39] = False
    labels[:9, 39] = True
    labels[:, 38] = False
    result = {
        rule.name: rule
        for rule in non_inferiority(
            rows(labels, critical=(38, 39)), score(labels, shared, one, 0.0), score(labels, shared, other, 5.0), POLICY
        )
        if "critical" in rule.name
    }
    assert {rule.outcome for rule in result.values()} == {"inconclusive"}
    few = "only 9 positive test pictures, 10 are needed to decide"
    assert result["critical class class 39"].note == f"{LIKELY}: {few}", "an inverse ranking shows, even with nine"
    assert Verdict((result["critical class class 39"],)).needs_reason
    assert result["critical class class 38"].note == "positive or negative test pictures are missing"
    same = non_inferiority(
        rows(labels, critical=(39,)), score(labels, shared, one, 2.0), score(labels, shared, one, 2.0), POLICY
    )
    assert [rule.outcome for rule in same] == ["pass", "pass", "inconclusive"], (
        "nine positives pass nothing, whoever is asked"
    )
    labels[9, 39] = True
    same = non_inferiority(
        rows(labels, critical=(39,)), score(labels, shared, one, 2.0), score(labels, shared, one, 2.0), POLICY
    )
    assert [rule.outcome for rule in same] == ["pass"] * 3, "a model is never worse than itself"


@pytest.mark.parametrize("skill", [0.0, 5.0])
def test_one_group_decides_nothing(skill: float) -> None:
    labels, shared, one, other = draw(np.random.default_rng(2), 400)
    together = replace(rows(labels, critical=(0,)), units=np.zeros(400, dtype=np.int64))
    ours, theirs = score(labels, shared, one, skill), score(labels, shared, other, 2.5)
    result = [
        *non_inferiority(together, ours, theirs, POLICY),
        *minimum(together, ours, Policy(draws=200, minimum=Minimum(mAP=0.5))),
    ]
    assert [rule.outcome for rule in result] == ["inconclusive"] * 4
    assert "one group" in str(result[0])
    assert "nan" not in str(result[0])
    assert [rule.outcome for rule in non_inferiority(together, ours, ours, POLICY)] == ["pass"] * 3, (
        "a model is never worse than itself"
    )


def test_a_tail_with_few_positives_is_left_to_a_person() -> None:
    labels, shared, one, other = draw(np.random.default_rng(1), ROWS)
    tail = np.array(BUCKETS) == "tail"
    for positives, outcome in ((9, "inconclusive"), (10, "fail")):
        labels[:, tail] = False
        labels[np.arange(positives), np.flatnonzero(tail)[np.arange(positives) % 3]] = True
        result = {
            rule.name: rule
            for rule in non_inferiority(
                rows(labels), score(labels, shared, one, 0.0), score(labels, shared, other, 8.0), POLICY
            )
        }
        assert (result["tail"].outcome, result["mAP"].outcome) == (outcome, "fail")
        assert result["tail"].high < -POLICY.may_fall.tail
        assert result["tail"].note == (
            f"{LIKELY}: only 9 positive test pictures, 10 are needed to decide" if positives == 9 else ""
        )


def test_unknown_labels_and_groups_count() -> None:
    labels, shared, one, other = draw(np.random.default_rng(2), 400)
    plain = rows(labels)
    scores = score(labels, shared, one, 2.0), score(labels, shared, other, 2.5)
    single = {rule.name: rule for rule in non_inferiority(plain, *scores, POLICY)}["mAP"]
    in_groups = {
        rule.name: rule for rule in non_inferiority(replace(plain, units=np.arange(400) // 40), *scores, POLICY)
    }["mAP"]
    assert in_groups.difference == single.difference
    assert in_groups.high - in_groups.low != single.high - single.low
    known = np.ones_like(labels)
    known[:200] = False
    half = {
        rule.name: rule for rule in non_inferiority(replace(plain, labels=labels & known, known=known), *scores, POLICY)
    }["mAP"]
    present = [c for c in range(CLASSES) if labels[200:, c].any()]
    expected = [np.mean([average_precision_score(labels[200:, c], part[200:, c]) for c in present]) for part in scores]
    assert (half.value, half.against) == pytest.approx(tuple(expected), abs=1e-6)


@pytest.mark.parametrize(("least", "outcome"), [(0.3, "pass"), (0.9, "fail"), (0.0, None)])
def test_the_minimum_is_asked_of_the_candidate_alone(least: float, outcome: str | None) -> None:
    labels, shared, one, _ = draw(np.random.default_rng(1), ROWS)
    rules = minimum(rows(labels), score(labels, shared, one, 2.5), Policy(draws=200, minimum=Minimum(mAP=least)))
    assert [rule.outcome for rule in rules] == ([outcome] if outcome else [])
    if rules:
        assert rules[0].value == pytest.approx(mean_ap(labels, score(labels, shared, one, 2.5)), abs=1e-6)


def test_coverage_says_the_limit_and_no_difference() -> None:
    (rule,) = coverage("coverage", 1, 4, "test pictures", Policy(coverage=0.5))
    assert (
        str(rule) == "inconclusive: coverage 25.0 %, at least 50.0 % are asked for; 1 of 4 test pictures are compared"
    )


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (
            Rule("coverage", "inconclusive", 0.9899, 0.99, -1e-4, *NO_INTERVAL, 0.0),
            "coverage 98.99 %, at least 99.0 % are asked for",
        ),
        (
            Rule("coverage", "inconclusive", 0.99, 0.9975, -0.0075, *NO_INTERVAL, 0.0),
            "coverage 99.0 %, at least 99.75 % are asked for",
        ),
        (
            Rule("mAP", "fail", 0.84, 0.86, -0.02, -0.03, -0.01003, 0.01),
            "mAP 84.0 against 86.0: -2.0 (-3.0 to -1.003), may be 1.0 lower",
        ),
        (
            Rule("tail", "pass", 0.84, 0.85, -0.01, -0.0124, 0.004, 0.0125),
            "tail 84.0 against 85.0: -1.0 (-1.2 to +0.4), may be 1.25 lower",
        ),
        (
            Rule("minimum mAP", "pass", 0.50042, 0.5, 0.00042, 0.0002, 0.001, 0.0),
            "minimum mAP 50.0 against 50.0: +0.04 (+0.02 to +0.1)",
        ),
    ],
)
def test_a_figure_is_never_rounded_onto_or_over_its_limit(rule: Rule, text: str) -> None:
    assert str(rule) == f"{rule.outcome}: {text}"


def test_a_difference_of_nothing_has_no_sign() -> None:
    rule = Rule("mAP", "pass", 0.55, 0.5504, -0.0004, -0.0202, -0.0001, 0.01)
    assert str(rule) == "pass: mAP 55.0 against 55.0: 0.0 (-2.0 to 0.0), may be 1.0 lower"
