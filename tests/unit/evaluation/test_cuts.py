"""The cut of one class against brute force over every cut, and what it promises of new images."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import f1_score, precision_recall_curve, recall_score
from unit.evaluation.made_scores import make

from capnet.evaluation.calibration import calibrate, cross_calibrate, fit_calibration
from capnet.evaluation.cuts import choose_cut, expected_f1_cut
from capnet.evaluation.thresholds import choose_thresholds


def _cases(levels: int) -> list[tuple[np.ndarray, np.ndarray]]:
    made = [make(30, 3, seed=seed, levels=levels, rarest=0.1, gain=1.0) for seed in range(4)]
    return [(item.labels[:, c], item.scores[:, c]) for item in made for c in range(3) if item.labels[:, c].any()]


@pytest.mark.parametrize("levels", [0, 5])
def test_expected_f1_cut_is_the_best_there_is(levels: int) -> None:
    """By brute force; where the probabilities are the labels themselves, it is scikit-learn's F1."""
    for labels, scores in _cases(levels):
        probabilities = scores.astype(np.float64) ** 2
        cut = np.float32(expected_f1_cut(scores, probabilities))
        marks = [scores >= value for value in (cut, *np.unique(scores))]
        mine, *all_cuts = (2 * probabilities[mark].sum() / (mark.sum() + probabilities.sum()) for mark in marks)
        assert mine == pytest.approx(max(all_cuts), abs=1e-12)
        certain = np.float32(expected_f1_cut(scores, labels.astype(np.float64)))
        best = max(f1_score(labels, scores >= value) for value in np.unique(scores))
        assert f1_score(labels, scores >= certain) == pytest.approx(best, abs=1e-12)


@pytest.mark.parametrize("levels", [0, 5])
@pytest.mark.parametrize("target", [0.3, 0.8, 1.0])
def test_recall_cut_is_the_highest_that_promises_it(levels: int, target: float) -> None:
    outcomes = set()
    for labels, scores in _cases(levels):
        cut, positives = choose_cut(labels, scores, f"recall>={target}"), int(labels.sum())
        hits = {value: int((labels & (scores >= value)).sum()) for value in np.unique(scores)}
        promising = [value for value, hit in hits.items() if hit >= target * (positives + 1) - 1e-9]
        assert cut.threshold == max(promising, default=scores[labels].min())
        assert cut.reached == bool(promising)
        assert recall_score(labels, scores >= np.float32(cut.threshold)) >= target - 1e-9
        outcomes.add(cut.reached)
    assert (True in outcomes) == (target < 1)


@pytest.mark.parametrize("positives", [9, 13, 19, 25])
def test_a_promised_recall_is_kept_on_positives_still_to_come(positives: int) -> None:
    rng, reached = np.random.default_rng(0), []
    for _ in range(4000):
        seen, new = rng.random(positives), rng.random()
        cut = choose_cut(np.ones(positives, dtype=bool), seen, "recall>=0.9")
        assert cut.reached
        reached.append(new >= cut.threshold)
    assert np.mean(reached) > 0.9 - 3 * np.sqrt(0.09 / len(reached))
    assert np.mean(reached) < 0.9 + 1 / (positives + 1) + 3 * np.sqrt(0.09 / len(reached)), "no more than is promised"


def test_a_recall_promised_to_other_groups_is_kept_where_images_of_a_group_are_alike() -> None:
    rng, kept = np.random.default_rng(0), {"groups": [], "images": []}
    for _ in range(2000):
        sizes = rng.integers(1, 30, size=12)
        groups = np.repeat(np.arange(12), sizes)
        seen = rng.normal(size=12)[groups] + 0.1 * rng.normal(size=len(groups))
        new = rng.normal() + 0.1 * rng.normal()
        positive = np.ones(len(groups), dtype=bool)
        kept["groups"].append(new >= choose_cut(positive, seen, "recall>=0.9", groups).threshold)
        kept["images"].append(new >= choose_cut(positive, seen, "recall>=0.9").threshold)
    error = 3 * np.sqrt(0.09 / 2000)
    assert np.mean(kept["groups"]) > 0.9 - error
    assert np.mean(kept["groups"]) < 0.9 + 1 / 13 + error, "no more than is promised"
    assert np.mean(kept["images"]) < 0.9 - error, "what counting images gives"


@pytest.mark.parametrize("objective", ["recall>=0.8", "precision>=0.5"])
def test_a_group_counts_as_one_positive_and_groups_of_one_change_nothing(objective: str) -> None:
    for labels, scores in _cases(0):
        alone = choose_cut(labels, scores, objective, np.arange(len(labels)))
        assert alone == choose_cut(labels, scores, objective)
        pairs = np.repeat(np.arange(len(labels)), 2)
        again = choose_cut(labels.repeat(2), scores.repeat(2), objective, pairs)
        assert again == alone, "every image twice, each pair a group"


def test_copies_of_an_image_in_one_group_do_not_vouch_for_each_other() -> None:
    made = make(60, 4, seed=3, rarest=0.05)
    labels, known, scores = (array.repeat(2, axis=0) for array in (made.labels, made.known, made.scores))
    calibration = fit_calibration(labels, known, scores, 1.0)
    groups = np.repeat(np.arange(60), 2)
    together = cross_calibrate(calibration, labels, known, scores, 1.0, groups)
    np.testing.assert_array_equal(together[::2], together[1::2])
    apart = cross_calibrate(calibration, labels, known, scores, 1.0)
    assert np.abs(apart[::2] - apart[1::2]).max() > 1e-3


def doubted(labels: np.ndarray, marked: np.ndarray, groups: np.ndarray) -> float:
    """Mean precision of the groups that are given a label, and of one more in which it is wrong."""
    means = [labels[marked & (groups == group)].mean() for group in np.unique(groups[marked])]
    return sum(means) / (len(means) + 1)


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("levels", [0, 5])
@pytest.mark.parametrize("target", [0.2, 0.5, 0.75])
def test_precision_cut_is_the_lowest_that_reaches_it_with_one_wrong_label_more(
    levels: int, target: float, grouped: bool
) -> None:
    outcomes, rng = set(), np.random.default_rng(0)
    for labels, scores in _cases(levels):
        groups = rng.integers(0, max(2, 2 * len(labels) // 3), size=len(labels))
        cut = choose_cut(labels, scores, f"precision>={target}", groups if grouped else None)
        units = groups if grouped else np.arange(len(labels))
        shares = {value: doubted(labels, scores >= value, units) for value in np.unique(scores)}
        reaching = [value for value, share in shares.items() if share >= target - 1e-9]
        outcomes.add(cut.reached)
        assert cut.reached == bool(reaching)
        if reaching:
            assert cut.threshold == min(reaching)
        else:
            best = max(shares.values())
            assert cut.threshold == min(value for value, share in shares.items() if share > best - 1e-9), "the lowest"
    if target == 0.75:
        assert outcomes == {True, False}, "both outcomes must be tried"


def test_f1_cut_lies_half_way_and_is_a_float32_number() -> None:
    scores = np.array([0.9, 0.8, 0.3, 0.1], dtype=np.float32)
    cut = expected_f1_cut(scores, np.array([1.0, 1.0, 0.0, 0.0]))
    assert cut == pytest.approx(0.55)
    assert float(np.float32(cut)) == cut


def test_f1_cut_of_a_class_that_is_in_every_image_is_the_lowest_score() -> None:
    scores = np.array([0.9, 0.3, 0.8], dtype=np.float32)
    assert expected_f1_cut(scores, np.ones(3)) == np.float32(0.3)


def test_f1_cut_between_neighbouring_float32_numbers_keeps_the_lower_one_out() -> None:
    low = np.float32(0.5)
    for high in (np.nextafter(low, np.float32(1)), np.nextafter(np.nextafter(low, np.float32(1)), np.float32(1))):
        scores = np.array([high, low], dtype=np.float32)
        cut = expected_f1_cut(scores, np.array([1.0, 0.0]))
        assert (scores >= np.float32(cut)).tolist() == [True, False]


def test_f1_cut_between_scores_that_float32_cannot_tell_apart_keeps_the_upper_one() -> None:
    rng = np.random.default_rng(0)
    for lower in rng.random(500):
        upper = lower + rng.random() * 6e-8
        assert expected_f1_cut(np.array([upper, lower]), np.array([1.0, 0.0])) <= upper


@pytest.mark.slow  # draws many data sets
def test_f1_of_new_images_is_better_than_by_the_best_cuts_of_few_positives() -> None:
    """Rare classes, half of them badly ranked: the best F1 of held-out images marks nearly all images of such."""
    rng, classes = np.random.default_rng(0), 40
    gain = np.where(np.arange(classes) % 2, 0.3, 3.0)

    def draw(images: int) -> tuple[np.ndarray, np.ndarray]:
        labels = rng.random((images, classes)) < 0.03
        return labels, expit(gain * labels - 4 + rng.normal(size=labels.shape)).astype(np.float32)

    def best_cut(labels: np.ndarray, scores: np.ndarray) -> float:
        precisions, recalls, cuts = precision_recall_curve(labels, scores)
        return cuts[np.argmax((2 * precisions * recalls / (precisions + recalls + 1e-12))[:-1])]

    result = {"expected": [], "best": []}
    for _ in range(5):
        labels, scores = draw(300)
        thresholds = choose_thresholds(labels, np.ones_like(labels), scores, "f1", 5, 1.0)
        assert not thresholds.borrowed.any()
        assert thresholds.reached.all()
        least = calibrate(thresholds.calibration, thresholds.threshold[None])[0]
        assert (least > 0.05 - 1e-5).all(), "no label less probable is given"
        best = [best_cut(labels[:, c], scores[:, c]) for c in range(classes)]
        new, later = draw(2000)
        for name, cuts in {"expected": thresholds.threshold, "best": best}.items():
            result[name].append([f1_score(new, later >= cuts, average=kind) for kind in ("macro", "micro")])
    expected, best = (np.mean(result[name], axis=0) for name in ("expected", "best"))
    assert expected[0] > best[0] - 0.01
    assert expected[1] > best[1] + 0.1
