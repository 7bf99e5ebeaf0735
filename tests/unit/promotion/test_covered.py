"""What a champion was tested on and a candidate was not: critical classes, and nothing in common at all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from unit.promotion.made_world import EASY, HARD, POLICY, WORSE, World, outcomes

from capnet.promotion.gate import gate_verdict
from capnet.promotion.policy import Policy


@pytest.mark.slow
@pytest.mark.parametrize("way", ["left out", "unknown", "no label"])
def test_the_positives_of_a_critical_class_are_not_left_out_without_a_reason(way: str) -> None:
    """A rare one of the head: 40 of 6,000 pictures, so that 99 % of all are compared without any of them."""
    world = World(0, 6000, EASY, EASY)
    world.labels[:, 0] &= np.cumsum(world.labels[:, 0]) <= 40
    positive = world.labels[:, 0]
    world.theirs[:, 0] = np.where(positive, 0.5, 0.0) + np.random.default_rng(1).random(6000) / 2
    champion = world.scores(world.theirs)
    classes = [item | {"critical": item["name"] == "class 0"} for item in champion.classes["classes"]]
    champion = replace(champion, classes={"classes": classes})
    bad = world.theirs.copy()
    bad[:, 0] = np.random.default_rng(0).random(6000)
    candidate = replace(world.scores(bad), classes={"classes": classes})
    assert gate_verdict(candidate, champion, POLICY).colour == "red"
    test = candidate.test
    if way == "left out":
        test = test[~positive].reset_index(drop=True)
    if way == "unknown":
        test = test.assign(unknown=[[0] if is_positive else [] for is_positive in positive])
    if way == "no label":
        test = test.assign(labels=[labels[labels > 0] for labels in test["labels"]])
    verdict = gate_verdict(replace(candidate, test=test), champion, POLICY)
    assert outcomes(verdict)["coverage"] == "pass"
    assert outcomes(verdict)["coverage of critical class class 0"] == "inconclusive"
    assert verdict.needs_reason
    assert "0 of 40 positives that the champion was tested on are compared" in str(verdict.uncovered[0])


def test_what_is_not_comparable_needs_a_reason_also_where_no_coverage_is_asked_for() -> None:
    world, policy = World(0, 400, WORSE[HARD]), Policy(draws=200, coverage=0.0)
    champion, candidate = world.scores(world.theirs), world.scores(world.ours)
    items = candidate.classes["classes"]
    other = replace(candidate, classes={"classes": [*items[:-1], {**items[-1], "name": "new"}]})
    seen = replace(champion, seen=champion.test[["sha256", "group"]])
    for ours, theirs in ((other, champion), (candidate, seen), (world.scores(world.ours, []), champion)):
        verdict = gate_verdict(ours, theirs, policy)
        assert (verdict.colour, verdict.needs_reason) == ("inconclusive", True)
        assert verdict.asks[0].startswith(("not comparable", "the champion knows other classes"))
    assert not gate_verdict(champion, champion, policy).needs_reason
