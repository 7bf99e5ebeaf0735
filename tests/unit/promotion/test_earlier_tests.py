"""A test set that grew by easy pictures: a fall on what earlier champions were tested on shows all the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient
from unit.promotion.made_world import HARD, POLICY, World, outcomes
from unit.promotion.promoting import champion, champion_scores, moves, never, submit
from unit.promotion.worse_tables import worse

from capnet.errors import GateError
from capnet.promotion import measure, scores
from capnet.promotion import promote as promotion
from capnet.promotion.gate import gate_verdict
from capnet.promotion.scores import GateScores

OLD, ALL = 600, 6000


def easy(world: World) -> None:
    """All but the first OLD pictures are ranked perfectly by both."""
    world.ours[OLD:] = world.theirs[OLD:] = 0.001 + 0.998 * world.labels[OLD:]


def part(size: int) -> frozenset[str]:
    return frozenset(f"{n:064}" for n in range(size))


def test_a_fall_on_the_test_of_an_earlier_champion_is_not_diluted() -> None:
    world = World(4, ALL, 1.2)
    easy(world)
    ours, theirs = world.scores(world.ours), world.scores(world.theirs)
    assert gate_verdict(ours, theirs, POLICY).colour == "green", "nothing else notices"
    verdict = gate_verdict(ours, theirs, POLICY, earlier=[part(OLD)])
    assert outcomes(verdict)[f"mAP on {OLD} test pictures of an earlier champion"] == "fail"
    assert verdict.colour == "red"


def test_an_equal_model_is_asked_no_more_than_before() -> None:
    """Tests of earlier champions are small: they never had to show that it is as good."""
    world = World(4, ALL, HARD)
    easy(world)
    ours, theirs = world.scores(world.ours), world.scores(world.theirs)
    before, now = (gate_verdict(ours, theirs, POLICY, earlier=earlier) for earlier in ([], [part(OLD), part(20)]))
    assert (now.colour, outcomes(now)) == ("green", outcomes(before))


@pytest.mark.slow
def test_tests_of_a_dozen_pictures_speak_against_no_equal_model() -> None:
    for seed in range(40):
        world = World(seed, 200, HARD)
        earlier = [part(size) for size in (100, 50, 25, 12)]
        verdict = gate_verdict(world.scores(world.ours), world.scores(world.theirs), POLICY, earlier=earlier)
        assert not [rule.name for rule in verdict.rules if "earlier" in rule.name]


def test_what_an_earlier_champion_was_tested_on_is_not_left_out() -> None:
    world = World(4, ALL, 1.2)
    easy(world)
    without = np.arange(40, ALL)  # 0.7 % of all, and 7 % of what the earlier one was tested on
    verdict = gate_verdict(world.scores(world.theirs, without), world.scores(world.theirs), POLICY, earlier=[part(OLD)])
    assert outcomes(verdict)[f"coverage of {OLD} test pictures of an earlier champion"] == "inconclusive"
    assert (verdict.colour, verdict.needs_reason) == ("inconclusive", True)


def grown(model: GateScores, content_hash: str) -> GateScores:
    """The same, tested on 40 times as many pictures more, with scores that say what is on them."""
    new = pd.concat([model.test] * 40, ignore_index=True)
    rows = [np.isin(np.arange(len(model.names)), labels).astype(np.float32) for labels in new["labels"]]
    new = new.assign(sha256=[f"{n:064}" for n in range(len(new))], group="", scores=rows)
    about = {**model.classes, "content_hash": content_hash}
    return replace(model, classes=about, test=pd.concat([model.test, new], ignore_index=True))


def test_no_two_registrations_get_a_worse_model_through(client: MlflowClient, tmp_path: Path) -> None:
    first = champion_scores(client)
    equal, bad = grown(first, "a" * 64), grown(worse(first), "b" * 64)
    known = dict(zip(equal.test["sha256"], equal.test["scores"], strict=True))

    def promote(number: str) -> None:
        version = client.get_model_version("capnet", number)
        promotion.promote(
            client,
            version,
            POLICY,
            never,
            make_rescore=lambda _: lambda rows: np.stack([known[key] for key in rows["sha256"]]),
        )

    promote("1")
    larger = submit(client, equal, tmp_path / "larger", "a" * 64)
    promote(larger)
    with pytest.raises(GateError, match=f"fail: mAP on {len(first.test)} test pictures of an earlier champion"):
        promote(submit(client, bad, tmp_path / "bad"))
    assert champion(client) == larger
    assert [move[3] for move in moves(client)] == ["green", "green"]


def test_a_small_test_hides_no_larger_one_before_it() -> None:
    parts = [part(size) for size in (400, 40, 30, 600, 0, 200)]
    assert [len(kept) for kept in measure.halves(parts, 1000)] == [400, 200, 40]


def test_tests_as_large_as_the_champions_are_not_fetched(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is one for every champion that ever was."""
    for number in ("1", "2", "1"):
        version = client.get_model_version("capnet", number)
        promotion.promote(client, version, POLICY, never, force=True, reason="a trial")
    read, fetched = scores.read_gate, list[Path]()
    monkeypatch.setattr(measure, "read_gate", lambda folder: fetched.append(folder) or read(folder))
    promotion.promote(client, client.get_model_version("capnet", "3"), POLICY, never, force=True, reason="a trial")
    assert len(fetched) == 2
