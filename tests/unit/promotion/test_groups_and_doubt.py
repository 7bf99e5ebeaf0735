"""Groups hang together however a candidate's table names them; a refusal needs more evidence than a question."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from capnet.promotion.gate import gate_verdict
from capnet.promotion.groups import common_groups
from capnet.promotion.policy import Policy
from capnet.promotion.scores import GateScores
from capnet.promotion.verdict import Verdict

Floats = NDArray[np.floating]
POLICY = Policy(draws=200)
BUCKETS = ["head", "head", "head", "medium", "medium", "tail", "tail", "tail"]
PREVALENCE = np.array([0.4, 0.3, 0.25, 0.2, 0.15, 0.12, 0.1, 0.08])


class Bursts:
    """Pictures that come in bursts of ``per``, with the scores of two models: those of a burst look alike to both."""

    def __init__(self, seed: int, size: int, per: int, skills: tuple[float, float], critical: bool = False) -> None:
        self.rng, self.burst = np.random.default_rng([seed, size, per]), np.arange(size) // per
        bursts = (self.burst[-1] + 1, len(BUCKETS))
        self.labels = (self.rng.random(bursts) < PREVALENCE)[self.burst]
        shared, mine, other = (self.noise(bursts) for _ in range(3))
        self.critical = critical
        self.ours, self.theirs = (
            (1 / (1 + np.exp(-(self.labels * skill + np.sqrt(0.6) * shared + np.sqrt(0.4) * own - 3)))).astype(
                np.float32
            )
            for skill, own in zip(skills, (mine, other), strict=True)
        )

    def noise(self, bursts: tuple[int, int]) -> Floats:
        alone = self.rng.standard_normal(self.labels.shape)
        return np.sqrt(0.5) * self.rng.standard_normal(bursts)[self.burst] + np.sqrt(0.5) * alone

    def scores(self, of: Floats, groups: list[str] | None = None, seen: pd.DataFrame | None = None) -> GateScores:
        size = len(of)
        test = pd.DataFrame(
            {
                "sha256": [f"{n:064}" for n in range(size)],
                "group": groups or [f"g{n}" for n in self.burst],
                "labels": [np.flatnonzero(row) for row in self.labels],
                "unknown": [[]] * size,
                "scores": list(of),
            }
        )
        items = [
            {"name": f"class {c}", "bucket": bucket, "critical": self.critical and c in (0, 4, 7)}
            for c, bucket in enumerate(BUCKETS)
        ]
        nothing = pd.DataFrame({"sha256": [], "group": []}, dtype=object)
        return GateScores({"classes": items}, test, nothing if seen is None else seen)


def numbers(verdict: Verdict) -> dict[str, tuple[str, float, float, float]]:
    return {rule.name: (rule.outcome, rule.difference, rule.low, rule.high) for rule in verdict.rules}


def test_groups_are_as_coarse_as_all_tables_together_say() -> None:
    one = pd.DataFrame({"sha256": list("abcdef"), "group": ["1", "1", "2", "2", "", "9"]})
    other = pd.DataFrame({"sha256": list("bcef"), "group": ["x", "x", "", ""]})
    groups = common_groups([one, other])
    assert len({groups[name] for name in "abcd"}) == 1, "a and b by the first, b and c by the second, c and d again"
    assert groups["f"] != groups["a"]
    assert "e" not in groups
    assert common_groups([one.assign(group="")]) == {}


def test_a_candidate_that_dissolves_groups_is_measured_as_if_it_had_not() -> None:
    world = Bursts(0, 600, 20, (2.5, 2.5))
    champion = world.scores(world.theirs)
    plain = gate_verdict(world.scores(world.ours), champion, POLICY)
    dissolved = gate_verdict(world.scores(world.ours, [""] * 600), champion, POLICY)
    renamed = gate_verdict(world.scores(world.ours, [f"own {n}" for n in range(600)]), champion, POLICY)
    assert numbers(dissolved) == numbers(renamed) == numbers(plain)
    alone = gate_verdict(world.scores(world.ours, [""] * 600), world.scores(world.theirs, [""] * 600), POLICY)
    widths = [numbers(verdict)["mAP"][3] - numbers(verdict)["mAP"][2] for verdict in (plain, alone)]
    assert widths[0] > 1.5 * widths[1], "which is what dissolving them would have given"


def test_a_candidate_that_dissolves_groups_needs_a_person_or_the_next_one_is_measured_without_them() -> None:
    world = Bursts(0, 600, 20, (2.5, 2.5))
    champion, alone = world.scores(world.theirs), [""] * 600
    assert gate_verdict(champion, champion, POLICY).colour == "green"
    same = gate_verdict(world.scores(world.theirs, alone), champion, POLICY)
    assert (same.colour, same.needs_reason) == ("inconclusive", False)
    assert same.notes == (
        "30 of 30 groups of the champion are taken apart: once this version is the champion, what they hold counts as"
        " independent",
    )
    for names in ([f"other {n}" for n in world.burst], [f"g{n // 3}" for n in world.burst]):  # renamed, merged
        assert "taken apart" not in str(gate_verdict(world.scores(world.theirs, names), champion, POLICY).notes)
    some = [f"g{n}" if n != 7 else "" for n in world.burst]
    assert "1 of 30 groups" in str(gate_verdict(world.scores(world.theirs, some), champion, POLICY).notes)
    assert gate_verdict(world.scores(world.theirs, some), champion, Policy(draws=200, coverage=0.9)).colour == "green"


@pytest.mark.parametrize("trained", [10, 599])
def test_groups_that_training_pictures_hold_together_are_not_taken_apart_either(trained: int) -> None:
    world = Bursts(0, 600, 20, (2.5, 2.5))
    rows = pd.DataFrame({"sha256": [f"train {n}" for n in range(600)], "group": [f"t{n}" for n in world.burst]})
    champion = world.scores(world.theirs, seen=rows)
    assert gate_verdict(world.scores(world.theirs, seen=rows), champion, POLICY).colour == "green"
    fewer = rows.assign(group=["" if n < trained else group for n, group in enumerate(rows["group"])])
    verdict = gate_verdict(world.scores(world.theirs, seen=fewer), champion, POLICY)
    assert verdict.colour == "inconclusive"
    gone = rows[trained:]  # pictures that the candidate does not have are no groups that it takes apart
    assert gate_verdict(world.scores(world.theirs, seen=gone), champion, POLICY).colour == "green"


def test_pictures_of_a_group_that_it_was_trained_on_are_no_test_whatever_it_calls_them() -> None:
    world = Bursts(1, 600, 20, (2.5, 2.5))
    champion = world.scores(world.theirs)
    trained = pd.DataFrame({"sha256": [f"{n:064}" for n in (0, 20, 40)], "group": ""})
    test = world.scores(world.ours, [""] * 600, trained)
    verdict = gate_verdict(replace(test, test=test.test.drop([0, 20, 40]).reset_index(drop=True)), champion, POLICY)
    assert verdict.rows == 540, "three pictures were learned, and the bursts that they are of"
    assert verdict.needs_reason


def test_pictures_that_it_puts_into_a_group_of_the_champions_training_are_missed() -> None:
    world = Bursts(2, 600, 1, (2.5, 2.5))
    champion = world.scores(world.theirs, seen=pd.DataFrame({"sha256": ["elsewhere"], "group": ["trained on"]}))
    groups = ["trained on" if n < 100 else f"g{n}" for n in range(600)]
    verdict = gate_verdict(world.scores(world.ours, groups), champion, POLICY)
    assert verdict.needs_reason
    assert "500 of 600 test pictures of the champion are compared" in str(verdict.rules[0])


@pytest.mark.parametrize("bursts", [2, 4, 8])
def test_positives_of_few_groups_are_few(bursts: int) -> None:
    """Two hundred pictures of a burst are one occasion on which a model can fail."""
    world = Bursts(3, 200 * bursts, 200, (2.5, 2.5))
    verdict = gate_verdict(world.scores(world.ours), world.scores(world.theirs), POLICY)
    assert verdict.colour != "green"
    assert "pass" not in {rule.outcome for rule in verdict.rules if "coverage" not in rule.name}


def test_a_class_that_only_the_champion_marks_as_critical_is_asked_about() -> None:
    world = Bursts(4, 2000, 1, (2.5, 2.5), critical=True)
    champion = world.scores(world.theirs)
    worse = np.where(np.arange(8) == 4, world.rng.random(world.ours.shape), world.theirs).astype(np.float32)
    candidate = world.scores(worse)
    unmarked = {"classes": [item | {"critical": False} for item in candidate.classes["classes"]]}
    verdict = gate_verdict(replace(candidate, classes=unmarked), champion, POLICY)
    assert verdict.colour == "red"
    assert "critical class class 4" in [rule.name for rule in verdict.broken]


def test_what_is_likely_asks_and_what_is_beyond_doubt_refuses() -> None:
    outcomes = []
    for skill in (2.5, 2.2, 1.2):
        world = Bursts(5, 600, 1, (skill, 2.5))
        verdict = gate_verdict(world.scores(world.ours), world.scores(world.theirs), POLICY)
        (rule,) = (rule for rule in verdict.rules if rule.name == "mAP")
        outcomes.append((rule.outcome, rule.high < -rule.margin, rule.note, verdict.needs_reason))
    assert outcomes[0][1:] == (False, "", False)
    assert outcomes[1] == ("inconclusive", True, "below what is allowed, but not beyond doubt", True)
    assert outcomes[2][:3] == ("fail", True, "")


@pytest.mark.slow
def test_no_equal_candidate_is_red_and_worse_ones_do_not_pass() -> None:
    """200 of each: test sets of 20 to 600 rows, alone and in bursts, with and without critical classes."""
    colours: dict[str, list[str]] = {"equal": [], "worse": []}
    for seed in range(200):
        size, per = (20, 40, 60, 100, 200, 600)[seed % 6], (1, 4, 10, 20)[seed // 6 % 4]
        better = (1.6, 2.5, 6.0)[seed // 24 % 3]
        worse = {1.6: 1.3, 2.5: 2.3, 6.0: 3.2}[better]
        for kind, skill in (("equal", better), ("worse", worse)):
            world = Bursts(seed, size, per, (skill, better), critical=seed % 2 == 0)
            hidden = [""] * size if seed % 5 == 0 else None  # one in five dissolves the groups
            verdict = gate_verdict(world.scores(world.ours, hidden), world.scores(world.theirs), POLICY)
            colours[kind].append(verdict.colour)
    assert colours["equal"].count("red") == 0
    assert colours["worse"].count("green") <= 0.025 * 200
    assert colours["worse"].count("red") >= 5, "a gate that never refuses would pass this test"
    assert colours["equal"].count("green") >= 3, "nor is one of use that never lets pass"
