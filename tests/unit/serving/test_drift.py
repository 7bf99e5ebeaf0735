"""Drift: silent where nothing changed, named where a label or its scores moved."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import chi2, chi2_contingency

from capnet.serving.drift import FEWEST, Drift, reference_document

NAMES = [f"c{number}" for number in range(30)]
LIMITS = np.full(30, 0.7)


def drift_report(reference: dict[str, Any], scores: np.ndarray, limits: np.ndarray) -> dict[str, Any]:
    """The report of scores that come in parts."""
    drift = Drift(reference, limits)
    for part in np.array_split(scores, 3):
        drift.add(part)
    return drift.report()


def _scores(seed: int, rows: int, shift: float = 0.0) -> np.ndarray:
    scores = np.random.default_rng(seed).beta(2, 4, (rows, 30)).astype(np.float32)
    scores[:, 4] = np.clip(scores[:, 4] + shift, 0, 1)
    return scores


def _reference(rows: int = 1000) -> dict[str, Any]:
    return reference_document(NAMES, np.full(30, 0.1), _scores(0, rows), LIMITS)


def test_equal_batches_are_silent_in_forty_trials() -> None:
    reference = _reference()
    named = sum(
        item["drifted"]
        for seed in range(1, 41)
        for item in drift_report(reference, _scores(seed, 400), LIMITS)["classes"]
    )
    assert named <= 2  # of 1,200 comparisons


@pytest.mark.parametrize("shift", [0.25, -0.2])
def test_a_class_whose_scores_moved_is_named_alone(shift: float) -> None:
    report = drift_report(_reference(), _scores(7, 400, shift), LIMITS)
    assert [item["name"] for item in report["classes"] if item["drifted"]] == ["c4"]
    result = report["classes"][4]
    assert result["decided_rate"] == pytest.approx(float((_scores(7, 400, shift)[:, 4] >= 0.7).mean()))
    assert (result["z"] > 0) == (shift > 0)


def test_z_is_that_of_two_proportions() -> None:
    report = drift_report(_reference(900), _scores(7, 400, 0.25), LIMITS)["classes"][4]
    given = [report["reference_rate"] * 900, report["decided_rate"] * 400]
    table = np.array([given, np.array([900, 400]) - given])
    assert report["z"] ** 2 == pytest.approx(chi2_contingency(table, correction=False).statistic)


def test_psi_is_the_textbook_sum() -> None:
    reference, scores = _reference(), _scores(3, 500, 0.1)
    item = reference["classes"][4]
    now, _ = np.histogram(scores[:, 4], [-np.inf, *item["edges"], np.inf])
    p, q = ((np.asarray(counts) + 0.5) / (np.sum(counts) + 5) for counts in (item["counts"], now))
    assert drift_report(reference, scores, LIMITS)["classes"][4]["psi"] == pytest.approx(
        float(np.sum((q - p) * np.log(q / p))), rel=1e-6
    )


def test_labels_of_a_picture_and_pictures_without_one_are_counted_in_both() -> None:
    limits = np.array([0.5, 0.6, 0.7])
    before, now = (np.random.default_rng(seed).random((60, 3)) ** power for seed, power in ((0, 1), (1, 2)))
    report = drift_report(reference_document(["a", "b", "c"], limits, before, limits), now, limits)
    for scores, found in ((before, report["reference"]), (now, report["now"])):
        labels = [sum(score >= limit for score, limit in zip(row, limits, strict=True)) for row in scores.tolist()]
        assert found == {
            "labels_per_picture": pytest.approx(sum(labels) / 60),
            "without_labels": pytest.approx(labels.count(0) / 60),
        }


def test_few_or_no_pictures_say_nothing() -> None:
    for rows in (0, 20, FEWEST - 1):
        report = drift_report(_reference(), _scores(1, rows, 0.3), LIMITS)
        assert not report["enough_pictures"]
        assert not any(item["drifted"] for item in report["classes"])
    assert not drift_report(_reference(20), _scores(1, 500, 0.3), LIMITS)["enough_pictures"]
    assert drift_report(_reference(), _scores(1, FEWEST), LIMITS)["enough_pictures"]


def test_a_class_that_always_scores_alike_is_no_error() -> None:
    scores = np.full((200, 30), 0.2, dtype=np.float32)
    report = drift_report(reference_document(NAMES, np.zeros(30), scores, LIMITS), scores, LIMITS)
    assert not any(item["drifted"] for item in report["classes"])


@pytest.mark.slow  # draws many batches
@pytest.mark.parametrize(
    ("classes", "rarest", "before", "rows", "batches"),
    [(40, 0.001, 1000, 50, 200), (40, 0.001, 1000, 100, 200), (40, 0.004, 329, 50, 200), (260, 0.01, 1000, 100, 400)],
)
def test_classes_of_an_unchanged_batch_are_named_no_more_often_than_chance(classes, rarest, before, rows, batches):
    """With the normal approximation a third of unchanged batches of 50 had a class that was named; with a limit of PSI
    that did not depend on the number of classes, 6 in a hundred with 260.
    """
    rng, rates = np.random.default_rng(0), np.geomspace(0.3, rarest, classes)
    names, limits = [str(number) for number in range(classes)], 1 - rates
    alarms = 0
    for _ in range(batches):
        reference = reference_document(names, rates, rng.random((before, classes)), limits)
        report = drift_report(reference, rng.random((rows, classes)), limits)
        alarms += any(item["drifted"] for item in report["classes"])
    assert alarms <= 0.04 * batches, "one or two of a hundred are promised"


def test_the_limit_of_the_scores_rises_with_the_number_of_classes() -> None:
    reference = _reference(1000)
    few = {**reference, "classes": reference["classes"][:2]}
    limits = [
        drift_report(content, _scores(1, 60)[:, : len(content["classes"])], LIMITS[: len(content["classes"])])
        for content in (few, reference)
    ]
    expected = [1.15 * chi2.isf(0.01 / n, 9) * (1 / 60 + 1 / 1000) for n in (2, 30)]
    shown = [float(f"{report['psi_limit']:.2f}") for report in limits]
    assert [report["psi_limit"] for report in limits] == shown, "what is printed with two decimals is the limit"
    assert all(0 <= limit - exact < 0.01 for limit, exact in zip(shown, expected, strict=True))
    assert drift_report(reference, _scores(1, 900), LIMITS)["psi_limit"] == 0.25


def test_a_rare_class_that_is_ten_times_as_frequent_is_named() -> None:
    rng, rates = np.random.default_rng(0), np.array([0.3, 0.005])
    reference = reference_document(["a", "b"], rates, rng.random((1000, 2)), 1 - rates)
    scores = np.stack([rng.random(200), rng.random(200) ** 0.1], axis=1)
    report = drift_report(reference, scores, 1 - rates)
    assert [item["name"] for item in report["classes"] if item["drifted"]] == ["b"]
