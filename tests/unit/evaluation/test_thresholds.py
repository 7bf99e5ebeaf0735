"""Thresholds of all classes: which choose for themselves, which borrow, and what is promised of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.metrics import precision_score, recall_score
from unit.evaluation.made_scores import make

from capnet.config.results import Threshold
from capnet.contracts import make_classes, write_json
from capnet.evaluation.calibration import calibrate
from capnet.evaluation.cuts import choose_cut
from capnet.evaluation.thresholds import choose_thresholds, no_thresholds
from capnet.evaluation.thresholds_file import read_thresholds, thresholds_and_calibration, thresholds_document


def test_groups_reach_thresholds_and_too_few_of_them_promise_nothing() -> None:
    made = make(400, 6, seed=1, rarest=0.01)
    few, some, many = np.arange(400) % 8, np.arange(400) % 30, np.arange(400)
    by = {
        len(np.unique(groups)): choose_thresholds(made.labels, made.known, made.scores, "recall>=0.9", 5, 1.0, groups)
        for groups in (few, some, many)
    }
    plain = choose_thresholds(made.labels, made.known, made.scores, "recall>=0.9", 5, 1.0)
    np.testing.assert_array_equal(by[8].threshold, plain.threshold)
    assert plain.reached.all()
    assert not by[8].reached.any(), "9 groups are the fewest that promise 0.9 to another one"
    own = ~by[30].borrowed
    assert own.any()
    assert (by[30].threshold[own] <= plain.threshold[own]).all(), "fewer units ask for a lower cut"
    np.testing.assert_array_equal(by[400].threshold[~by[400].borrowed], plain.threshold[~plain.borrowed])
    units = np.array([len(np.unique(some[made.labels[:, c]])) for c in range(6)])
    assert by[30].borrowed.tolist() == (units < 9).tolist()


def test_rare_classes_borrow_the_cut_that_promises_the_recall_to_rare_classes() -> None:
    """Where scores of rare positives are lower than their probabilities say, the frequent classes' cut misses them."""
    rng = np.random.default_rng(0)

    def draw(images: int) -> tuple[np.ndarray, np.ndarray]:
        labels = rng.random((images, 24)) < np.where(np.arange(24) < 2, 0.4, 0.01)
        gain = np.where(np.arange(24) < 2, 6.0, rng.choice([0.0, 6.0], size=labels.shape))
        return labels, expit(gain * labels - 3 + rng.normal(size=labels.shape)).astype(np.float32)

    labels, scores = draw(400)
    thresholds = choose_thresholds(labels, np.ones_like(labels), scores, "recall>=0.9", 5, 1.0)
    assert not thresholds.borrowed[:2].any()
    assert thresholds.borrowed[2:].sum() > 10
    new, later = draw(4000)
    rare = thresholds.borrowed
    kept = recall_score(new[:, rare].ravel(), (later >= thresholds.threshold)[:, rare].ravel())
    assert 0.86 < kept < 0.98
    assert recall_score(new[:, :2].ravel(), (later >= thresholds.threshold)[:, :2].ravel()) > 0.88


def test_a_class_whose_positives_cannot_promise_the_recall_borrows() -> None:
    made = make(400, 6, seed=1, rarest=0.01)
    positives = made.labels.sum(axis=0)
    assert ((positives >= 5) & (positives < 19)).any()
    for target, least in ((0.9, 9), (0.95, 19)):
        thresholds = choose_thresholds(made.labels, made.known, made.scores, f"recall>={target}", 5, 1.0)
        assert thresholds.borrowed.tolist() == (positives < least).tolist()


@pytest.mark.slow  # draws many data sets
def test_a_precision_is_kept_on_new_images_also_by_classes_that_are_rare() -> None:
    """What just reaches it on the images that choose does not: the best of many cuts are so by luck in part."""
    rng = np.random.default_rng(0)
    frequent, target = np.arange(40) < 2, 0.8

    def draw(images: int) -> tuple[np.ndarray, np.ndarray]:
        labels = rng.random((images, 40)) < np.where(frequent, 0.3, 0.02)
        return labels, expit(2.5 * labels - 3 + rng.normal(size=labels.shape)).astype(np.float32)

    right, marked = np.zeros((2, 2)), np.zeros((2, 2))
    for _ in range(8):
        labels, scores = draw(300)
        thresholds = choose_thresholds(labels, np.ones_like(labels), scores, f"precision>={target}", 5, 1.0)
        assert thresholds.reached[labels.any(axis=0)].all()
        naive = thresholds.threshold.copy()
        for c in np.flatnonzero(labels.sum(axis=0) >= 5):
            reaching = [cut for cut in scores[:, c] if labels[scores[:, c] >= cut, c].mean() >= target]
            naive[c] = min(reaching, default=naive[c])
        new, later = draw(1000)
        for i, threshold in enumerate((thresholds.threshold, naive)):
            for j, classes in enumerate((frequent, ~frequent)):
                marks = (later >= threshold)[:, classes]
                right[i, j] += (marks & new[:, classes]).sum()
                marked[i, j] += marks.sum()
    kept = right / marked
    assert (kept[0] > target - 0.02).all()
    assert kept[1, 1] < target - 0.04


def test_classes_with_enough_positives_choose_for_themselves_and_others_borrow() -> None:
    made = make(200, 6, seed=1, unknown=0.1, rarest=0.005)
    positives = made.labels.sum(axis=0)
    thresholds = choose_thresholds(made.labels, made.known, made.scores, "recall>=0.5", 8, 1.0)
    assert thresholds.positives.tolist() == positives.tolist()
    assert thresholds.borrowed.tolist() == (positives < 8).tolist()
    assert 0 < thresholds.borrowed.sum() < 6
    for c in range(6):
        rows = made.known[:, c]
        if not thresholds.borrowed[c]:
            assert thresholds.threshold[c] == np.float32(
                choose_cut(made.labels[rows, c], made.scores[rows, c], "recall>=0.5").threshold
            )
        if made.labels[:, c].any():
            marked = made.scores[rows, c] >= thresholds.threshold[c]
            assert thresholds.recall[c] == pytest.approx(recall_score(made.labels[rows, c], marked))
            assert thresholds.precision[c] == pytest.approx(
                precision_score(made.labels[rows, c], marked, zero_division=0)
            )


def test_a_borrowed_threshold_has_the_pooled_probability_in_every_class() -> None:
    made, objective = make(200, 5, seed=2), "recall>=0.8"
    thresholds = choose_thresholds(made.labels, made.known, made.scores, objective, 10**6, 1.0)
    assert thresholds.borrowed.all()
    probabilities = calibrate(thresholds.calibration, thresholds.threshold[None])[0]
    np.testing.assert_allclose(probabilities, probabilities[0], atol=1e-5)
    assert np.ptp(thresholds.threshold) > 0.01, "classes of other frequency need other scores"


def test_f1_of_a_class_without_known_rows_or_positives_has_a_threshold() -> None:
    made = make(200, 5, seed=2)
    made.known[:, 4] = made.labels[:, 4] = made.labels[:, 3] = False
    thresholds = choose_thresholds(made.labels, made.known, made.scores, "f1", 5, 1.0)
    assert np.isfinite(thresholds.threshold).all()
    assert not thresholds.borrowed.any()


def test_pooled_recall_is_reached() -> None:
    made = make(200, 5, seed=3)
    thresholds = choose_thresholds(made.labels, made.known, made.scores, "recall>=0.9", 10**6, 1.0)
    assert recall_score(made.labels, made.scores >= thresholds.threshold, average="micro") >= 0.9 - 0.01
    assert thresholds.reached.all()


@pytest.mark.parametrize("objective", ["recall>=0.9", "precision>=0.1"])
def test_nothing_is_promised_for_a_class_without_a_positive(objective: str) -> None:
    made = make(200, 5, seed=3)
    made.labels[:, 4] = False
    made.labels[1:, 3] = False
    made.labels[0, 3] = True
    thresholds = choose_thresholds(made.labels, made.known, made.scores, objective, 10**6, 1.0)
    assert thresholds.reached.tolist() == [True, True, True, True, False]
    assert thresholds.borrowed.all()
    assert choose_thresholds(made.labels, made.known, made.scores, "f1", 5, 1.0).reached.all(), "f1 promises nothing"


def test_a_precision_out_of_reach_is_marked() -> None:
    rng = np.random.default_rng(4)
    labels, scores = rng.random((300, 3)) < 0.2, rng.random((300, 3)).round(1).astype(np.float32)
    thresholds = choose_thresholds(labels, np.ones_like(labels), scores, "precision>=0.99", 5, 1.0)
    assert not thresholds.reached.any()
    assert thresholds.borrowed.all(), "no class reaches it by itself"


def test_unknown_entries_have_no_effect() -> None:
    made = make(150, 5, seed=5, unknown=0.3)
    labels, scores = made.labels.copy(), made.scores.copy()
    labels[~made.known], scores[~made.known] = True, 0.0005
    first = choose_thresholds(made.labels, made.known, made.scores, "f1", 5, 1.0)
    second = choose_thresholds(labels, made.known, scores, "f1", 5, 1.0)
    np.testing.assert_allclose(first.threshold, second.threshold, atol=1e-6)
    np.testing.assert_array_equal(first.positives, second.positives)
    np.testing.assert_allclose(first.precision, second.precision)


def test_no_positive_at_all_gives_one_half_everywhere() -> None:
    made = make(30, 3, seed=6)
    thresholds = choose_thresholds(np.zeros_like(made.labels), made.known, made.scores, "f1", 5, 1.0)
    assert (thresholds.threshold == 0.5).all()
    assert thresholds.borrowed.all()


def test_the_document_has_numbers_in_class_order_and_no_nan() -> None:
    made, classes, views = (
        make(100, 4, seed=7),
        make_classes(["b", "a", "d", "c"]),
        {"views": 5, "expand": 24, "average": "logits"},
    )
    thresholds = choose_thresholds(made.labels, made.known, made.scores, "recall>=0.8", 5, 1.0)
    content = thresholds_document(thresholds, classes, Threshold(objective="recall>=0.8"), views, "val")
    assert [item["name"] for item in content["classes"]] == ["b", "a", "d", "c"]
    assert [np.float32(item["threshold"]) for item in content["classes"]] == thresholds.threshold.tolist()
    assert (content["views"], content["source"], content["objective"], content["schema"]) == (
        views,
        "val",
        "recall>=0.8",
        1,
    )
    assert content["class_fingerprint"] == classes.fingerprint
    assert len(content["calibration"]["shift"]) == 4
    assert "critical_objective" not in content
    nothing = thresholds_document(no_thresholds(4), classes, Threshold(critical_objective="f1"), views, "none")
    assert {item["precision"] for item in nothing["classes"]} == {None}
    assert nothing["critical_objective"] == "f1"


def test_each_class_has_the_threshold_of_its_own_objective_and_borrows_from_classes_of_the_same() -> None:
    made = make(400, 8, seed=1, rarest=0.01)
    asked = np.array(["f1", "recall>=0.9"])[np.arange(8) % 2]
    every = {
        target: choose_thresholds(made.labels, made.known, made.scores, target, 12, 1.0) for target in np.unique(asked)
    }
    thresholds = choose_thresholds(made.labels, made.known, made.scores, asked.tolist(), 12, 1.0)
    for c, target in enumerate(asked):
        assert thresholds.borrowed[c] == every[target].borrowed[c]
        if not thresholds.borrowed[c]:
            assert thresholds.threshold[c] == every[target].threshold[c]
    assert 0 < thresholds.borrowed.sum() < 8
    # what borrowers share is chosen on classes of their objective alone: the others' labels change nothing
    other = made.labels.copy()
    other[:, asked == "f1"] = False
    other[:30, asked == "f1"] = True
    lent = thresholds.borrowed & (asked != "f1")
    assert lent.any()
    again = choose_thresholds(other, made.known, made.scores, asked.tolist(), 12, 1.0)
    np.testing.assert_array_equal(again.borrowed[asked != "f1"], thresholds.borrowed[asked != "f1"])


def test_an_objective_whose_classes_have_no_positive_is_not_reached() -> None:
    made = make(200, 4, seed=2)
    labels = made.labels.copy()
    labels[:, 3] = False
    thresholds = choose_thresholds(labels, made.known, made.scores, ["f1", "f1", "f1", "recall>=0.9"], 5, 1.0)
    assert thresholds.borrowed.tolist() == [False, False, False, True]
    assert thresholds.reached.tolist() == [True, True, True, False]
    # it borrows from all classes: its probability is the one that nine of ten of their positives have
    probabilities = calibrate(thresholds.calibration, made.scores)
    level = calibrate(thresholds.calibration, thresholds.threshold[None])[0, 3]
    assert 0.9 <= (probabilities[labels] >= level - 1e-6).mean() < 0.93


def test_a_recall_next_to_nothing_is_chosen_too() -> None:
    made = make(100, 4, seed=8)
    thresholds = choose_thresholds(made.labels, made.known, made.scores, "recall>=1e-9", 5, 1.0)
    assert np.isfinite(thresholds.threshold).all()


@pytest.mark.parametrize("rare", [1, 3, 8])
def test_a_rare_class_is_not_marked_by_what_frequent_ones_reach(rare: int) -> None:
    """Nine positives are the fewest that promise 0.9: those of classes with a threshold of their own are no help."""
    rng = np.random.default_rng(rare)
    labels = rng.random((400, 11)) < 0.2
    labels[:, -1] = False
    labels[rng.choice(400, rare, replace=False), -1] = True
    scores = expit(3.0 * labels - 3.0 + rng.normal(size=labels.shape)).astype(np.float32)
    thresholds = choose_thresholds(labels, np.ones_like(labels), scores, "recall>=0.9", 5, 1.0)
    assert thresholds.reached[:-1].all()
    assert thresholds.borrowed[-1]
    assert not thresholds.reached[-1]


@pytest.mark.parametrize("height", [0.0, -14.0])
def test_a_borrowed_recall_is_reached_also_where_scores_are_next_to_nothing(height: float) -> None:
    """Calibrations take scores below 1e-7 for equal, so a threshold between these would leave out what was counted."""
    rng = np.random.default_rng(0)

    def draw(images: int, share: float) -> tuple[np.ndarray, np.ndarray]:
        labels = rng.random((images, 8)) < share
        return labels, expit(4.0 * labels - 6 + height + 3 * rng.normal(size=labels.shape)).astype(np.float32)

    labels, scores = draw(400, 0.01)
    chosen = choose_thresholds(labels, np.ones_like(labels), scores, "recall>=0.9", 50, 1.0)
    assert chosen.borrowed.all()
    assert chosen.reached.all()
    assert recall_score(labels.ravel(), (scores >= chosen.threshold).ravel()) > 0.9
    new, later = draw(4000, 0.02)
    assert recall_score(new.ravel(), (later >= chosen.threshold).ravel()) > 0.88


def test_one_temperature_for_all_classes_is_that_of_each(tmp_path: Path) -> None:
    """As older files have it: registered versions with such a file could not be served any more."""
    made, names = make(200, 3, seed=6, rarest=0.2), ["a", "b", "c"]
    thresholds = choose_thresholds(made.labels, made.known, made.scores, "f1", 5, 1.0)
    document = thresholds_document(thresholds, make_classes(names), Threshold(), {}, "val")
    document["calibration"]["temperature"] = 0.5
    write_json(tmp_path / "thresholds.json", document)
    limits, calibration = thresholds_and_calibration(read_thresholds(tmp_path / "thresholds.json"))
    np.testing.assert_array_equal(limits, thresholds.threshold)
    expected = expit(2 * logit(made.scores.astype(np.float64)) + thresholds.calibration.shift)
    np.testing.assert_allclose(calibrate(calibration, made.scores), expected)
