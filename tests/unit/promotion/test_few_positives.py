"""What fewer positives than a rule needs can show all the same: a class that collapsed needs the reason of a person."""

from __future__ import annotations

import numpy as np
import pytest

from capnet.promotion.compared_rows import ComparedRows
from capnet.promotion.non_inferiority import non_inferiority
from capnet.promotion.policy import Policy
from capnet.promotion.verdict import Rule, Verdict

PICTURES, POLICY = 300, Policy(draws=200)


def critical_rule(labels: np.ndarray, candidate: np.ndarray, champion: np.ndarray, units: np.ndarray) -> Rule:
    known, critical = np.ones_like(labels), np.array([False, True])
    rows = ComparedRows(labels, known, units, ["cat", "lynx"], ["head", "tail"], critical)
    return non_inferiority(rows, candidate.astype(np.float32), champion.astype(np.float32), POLICY)[-1]


@pytest.mark.parametrize("positives", [9, 10])
def test_one_group_shows_nothing(positives: int) -> None:
    labels = np.stack([np.arange(PICTURES) % 2 == 0, np.arange(PICTURES) < positives], axis=1)
    noise, units = np.random.default_rng(0).normal(size=labels.shape), np.zeros(PICTURES, dtype=np.int64)
    rule = critical_rule(labels, noise - 5 * labels, noise + 5 * labels, units)
    assert (rule.outcome, Verdict((rule,)).needs_reason) == ("inconclusive", False)


@pytest.mark.slow
@pytest.mark.parametrize("positives", [2, 3, 5, 9])
@pytest.mark.parametrize("of_a_group", [1, 4])
def test_a_collapse_asks_for_a_reason_and_equal_models_hardly_ever_do(positives: int, of_a_group: int) -> None:
    asked = {"collapsed": 0, "equal": 0, "lower by half a margin": 0}
    for seed in range(100):
        rng = np.random.default_rng(seed)
        labels = np.stack([rng.random(PICTURES) < 0.4, np.arange(PICTURES) < positives * of_a_group], axis=1)
        units = np.arange(PICTURES) // of_a_group
        shared, one, other = rng.normal(size=(3, *labels.shape))
        ours, theirs = (2 * labels + 0.9 * shared + 0.4 * own for own in (one, other))
        pairs = {
            "equal": (ours, theirs),
            "lower by half a margin": (1.9 * labels + 0.9 * shared + 0.4 * one, theirs),
            "collapsed": (shared - 5 * labels, shared + 5 * labels),
        }
        for name, (candidate, champion) in pairs.items():
            rule = critical_rule(labels, candidate, champion, units)
            assert rule.outcome == "inconclusive", f"{positives} positives decide nothing"
            assert "are needed to decide" in rule.note
            asked[name] += Verdict((rule,)).needs_reason
    assert asked["collapsed"] >= 85
    assert max(asked["equal"], asked["lower by half a margin"]) <= 3
