"""Growth takes classes out of the tail, and so does a setting: only the latter needs a person."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from capnet.contracts.classes import Classes, ClassInfo
from capnet.promotion.gate import gate_verdict
from capnet.promotion.policy import Policy
from capnet.promotion.scores import GateScores
from capnet.promotion.tails import moved_classes

NAMES = [f"class {number}" for number in range(8)]
COUNTS = [300, 150, 100, 60, 25, 19, 8, 3]
LIMITS = (100, 20)


def scores(counts: list[int], limits: tuple[int, int], names: list[str] = NAMES) -> GateScores:
    """Of a model that ranks 64 pictures right, with buckets as split makes them."""
    classes = Classes(tuple(ClassInfo(name, name, name) for name in names)).with_counts(counts, limits)
    labels = np.arange(64)[:, None] % len(names) == np.arange(len(names))
    test = {
        "sha256": [f"{number:064}" for number in range(64)],
        "group": "",
        "labels": [np.flatnonzero(row) for row in labels],
        "unknown": [[]] * 64,
        "scores": list(labels.astype(np.float32)),
    }
    items = [
        {"name": item.name, "bucket": item.bucket, "train_count": item.train_count, "critical": False}
        for item in classes.items
    ]
    return GateScores({"classes": items}, pd.DataFrame(test), pd.DataFrame({"sha256": [], "group": []}, dtype=object))


@pytest.mark.parametrize("seed", range(20))
def test_with_the_same_limits_no_number_of_images_moves_a_class(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(50):
        before, now = (rng.integers(0, 130, len(NAMES)).tolist() for _ in range(2))
        assert moved_classes(scores(now, LIMITS), scores(before, LIMITS), Policy()) == []


@pytest.mark.parametrize(
    ("limits", "moved"),
    [
        ((100, 0), "class 5, class 6, class 7"),  # nothing is in the tail any more
        ((100, 5), "class 5, class 6"),
        ((100, 61), "class 3, class 4"),  # easier classes join it
        ((9999, 9999), "class 0, class 1, class 2, class 3, class 4"),
    ],
)
def test_other_limits_need_a_person_because_later_versions_are_asked_about_that_tail(
    limits: tuple[int, int], moved: str
) -> None:
    candidate, champion = scores(COUNTS, limits), scores(COUNTS, LIMITS)
    verdict = gate_verdict(candidate, champion, Policy(draws=200))
    assert verdict.colour == "inconclusive"
    assert f"out of it: {moved}. Once" in str(verdict.notes)
    assert gate_verdict(champion, champion, Policy(draws=200)).colour == "green"
    assert moved_classes(candidate, champion, Policy(coverage=0.0)) == []


def test_the_share_is_of_the_classes_of_both_tails_and_not_of_all() -> None:
    names = [f"class {number}" for number in range(60)]
    counts = [500] * 56 + [19, 19, 8, 3]
    candidate, champion = scores(counts, (100, 5), names), scores(counts, LIMITS, names)
    assert "moves 3 classes" in str(moved_classes(candidate, champion, Policy(coverage=0.5)))
    assert moved_classes(candidate, champion, Policy(coverage=0.25)) == []


def test_limits_of_the_head_do_not_matter() -> None:
    assert moved_classes(scores(COUNTS, (200, 20)), scores(COUNTS, LIMITS), Policy()) == []


def test_growth_beside_other_limits_hides_none_that_did_not_grow() -> None:
    grown = [300, 150, 100, 60, 25, 40, 8, 3]
    assert "into the tail or out of it: class 6. Once" in str(
        moved_classes(scores(grown, (100, 5)), scores(COUNTS, LIMITS), Policy())
    )


def test_without_common_classes_or_counts_nothing_is_said() -> None:
    champion = scores(COUNTS, LIMITS)
    other = scores(COUNTS, (100, 0), [f"other {number}" for number in range(8)])
    assert moved_classes(other, champion, Policy()) == []
    old = [{key: value for key, value in item.items() if key != "train_count"} for item in champion.classes["classes"]]
    without = GateScores({"classes": old}, champion.test, champion.seen)
    assert moved_classes(scores(COUNTS, (100, 0)), without, Policy()) == []
