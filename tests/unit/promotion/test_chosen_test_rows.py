"""A candidate chooses its own test rows: no choice makes a worse one pass, and what it leaves out needs a reason."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import average_precision_score
from unit.promotion.made_world import BUCKETS, EASY, HARD, POLICY, WORSE, World, outcomes
from unit.stores import Make

from capnet.contracts import read_classes
from capnet.promotion.gate import gate_verdict
from capnet.promotion.policy import Minimum, Policy
from capnet.promotion.scores import gate_scores


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_a_test_set_of_a_few_pictures_passes_nothing(rows: int) -> None:
    world = World(0, 400, WORSE[EASY], EASY)
    positive = np.argsort(-world.labels.sum(axis=1), kind="stable")[:rows]
    verdict = world.verdict(positive, positive)  # also where the champion was tested on no more
    assert verdict.colour != "green"
    assert "pass" not in {outcome for name, outcome in outcomes(verdict).items() if "coverage" not in name}
    if rows == 1:
        assert verdict.colour == "inconclusive"
        assert "positive or negative test pictures are missing" in str(verdict.rules[-1])


def test_a_model_is_not_better_than_itself_on_one_picture_either() -> None:
    world = World(0, 400, HARD)
    one = world.scores(world.theirs, np.argsort(-world.labels.sum(axis=1), kind="stable")[:1])
    assert gate_verdict(one, one, POLICY).colour == "inconclusive"
    assert gate_verdict(world.scores(world.theirs), world.scores(world.theirs), POLICY).colour == "green"


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_the_minimum_is_not_passed_on_a_few_pictures(rows: int) -> None:
    world = World(0, 400, EASY)
    few = world.scores(world.ours, np.flatnonzero(world.labels[:, 0])[:rows])
    policy = Policy(draws=200, minimum=Minimum(mAP=0.5))
    assert gate_verdict(few, None, policy).colour == "inconclusive"
    assert gate_verdict(world.scores(world.ours), None, policy).colour == "green"


def test_one_picture_many_times_is_one_picture() -> None:
    world = World(0, 400, WORSE[HARD])
    one = int(np.argmax(world.labels.sum(axis=1)))
    verdict = world.verdict([one] * 500)
    assert (verdict.colour, verdict.rows) == ("inconclusive", 1)
    assert "499 of 500 test pictures are left out: they are there more than once" in verdict.notes


def test_no_test_picture_at_all_is_no_crash() -> None:
    world = World(0, 50, HARD)
    verdict = world.verdict([])
    assert (verdict.colour, verdict.rows, verdict.needs_reason) == ("inconclusive", 0, True)
    assert gate_verdict(world.scores(world.ours, []), None, POLICY).colour == "inconclusive"


@pytest.mark.parametrize("size", [300, 2000])
@pytest.mark.parametrize("kept", [0.5, 0.8, 0.95])
def test_rows_shrunken_to_those_that_it_does_well_on(size: int, kept: float) -> None:
    world = World(1, size, WORSE[HARD])
    chosen = np.argsort(-world.gain(), kind="stable")[: int(kept * size)]
    verdict = world.verdict(np.sort(chosen))
    assert verdict.needs_reason
    assert verdict.colour != "green"
    rule = verdict.rules[0]
    assert (rule.name, rule.outcome, rule.value, rule.against) == (
        "coverage",
        "inconclusive",
        pytest.approx(kept),
        0.99,
    )
    assert f"{int(kept * size)} of {size} test pictures of the champion are compared" in str(rule)


def test_a_candidate_without_the_positives_of_the_tail() -> None:
    world = World(2, 2000, HARD)
    tail = np.array(BUCKETS) == "tail"
    rare = np.flatnonzero(world.labels[:, tail].any(axis=1))
    policy = POLICY.model_copy(update={"coverage": 0.5})
    champion = world.scores(world.theirs)
    without = gate_verdict(world.scores(world.ours, np.setdiff1d(np.arange(2000), rare)), champion, policy)
    assert outcomes(without)["coverage"] == "pass"
    assert outcomes(without)["coverage of the tail"] == "inconclusive"
    assert without.needs_reason
    assert f"0 of {world.labels[:, tail].sum()} tail positives" in str(without.rules[1])
    unlabelled = world.scores(world.ours)  # the pictures stay, their labels go
    labels = [[c for c in row if not tail[c]] for row in unlabelled.test["labels"]]
    verdict = gate_verdict(replace(unlabelled, test=unlabelled.test.assign(labels=labels)), champion, policy)
    assert outcomes(verdict)["coverage of the tail"] == "inconclusive"
    unknown = [np.flatnonzero(tail) for _ in labels]
    verdict = gate_verdict(replace(unlabelled, test=unlabelled.test.assign(unknown=unknown)), champion, policy)
    assert outcomes(verdict)["coverage of the tail"] == "inconclusive"


def test_labels_that_were_changed_are_another_test() -> None:
    world = World(2, 1000, WORSE[HARD])
    candidate = world.scores(world.ours)
    flattering = [np.flatnonzero(row > 0.3) for row in world.ours]
    verdict = gate_verdict(
        replace(candidate, test=candidate.test.assign(labels=flattering)), world.scores(world.theirs), POLICY
    )
    assert outcomes(verdict)["coverage"] == "inconclusive"
    assert verdict.needs_reason


def test_a_few_labels_that_were_changed_hide_no_fall() -> None:
    """As many pictures as the policy's coverage allows get the labels that the candidate gives them."""
    world, rng = World(4, 4000, HARD), np.random.default_rng(0)
    world.labels = rng.random(world.labels.shape) < 0.02
    world.theirs = (0.9 * world.labels + 0.1 * rng.random(world.labels.shape)).astype(np.float32)
    world.ours = np.where(rng.random(world.labels.shape) < 0.1, np.float32(0.0), world.theirs)
    wrong = np.flatnonzero(~world.labels.any(axis=1))[:40]
    world.ours[wrong] = 1.0
    champion = world.scores(world.theirs)
    world.labels[wrong] = True
    verdict = gate_verdict(world.scores(world.ours), champion, POLICY)
    outcome = outcomes(verdict)
    assert (outcome["coverage"], outcome["mAP"], outcome["tail"]) == ("pass", "pass", "pass")
    assert outcome["mAP on the champion's test pictures"] == "fail"
    assert outcome["tail on the champion's test pictures"] == "inconclusive"
    assert verdict.colour == "red"


def test_grown_test_sets_stay_fine() -> None:
    world = World(3, 4000, EASY)
    verdict = world.verdict(np.arange(4000), np.arange(2000))
    assert (verdict.colour, verdict.rows, verdict.needs_reason) == ("green", 4000, False)
    verdict = world.verdict(np.arange(4000), np.arange(2000), rescored=False)
    assert (verdict.colour, verdict.rows, verdict.needs_reason) == ("inconclusive", 2000, False)
    assert {*outcomes(verdict).values()} == {"pass"}
    left_out = "the champion has no scores for 2000 of 4000 test pictures, which are left out"
    assert verdict.notes == (f"{left_out}: `capnet promote --data FOLDER` lets it score them",)


def test_a_set_grown_by_pictures_that_are_easy_for_all_hides_no_fall() -> None:
    world = World(4, 4000, WORSE[HARD])
    easy = np.arange(2000, 4000)
    world.ours[easy] = world.theirs[easy] = 0.5 + world.labels[easy] * 0.4
    verdict = world.verdict(np.arange(4000), np.arange(2000))
    assert verdict.colour == "red"
    assert outcomes(verdict)["mAP on the champion's test pictures"] == "fail"


def test_a_new_picture_without_scores_turns_no_red_into_a_question() -> None:
    world = World(4, 2001, WORSE[HARD])
    assert world.verdict(np.arange(2001), np.arange(2000), rescored=False).colour == "red"


def test_a_test_set_that_was_replaced_needs_a_reason() -> None:
    world = World(5, 4000, EASY)
    for rescored in (True, False):
        verdict = world.verdict(np.arange(2000, 4000), np.arange(2000), rescored)
        assert (verdict.colour, verdict.needs_reason) == ("inconclusive", True)
        assert "0 of 2000 test pictures of the champion are compared" in str(verdict.rules[0])


def test_pictures_that_the_candidate_was_trained_on_are_no_test() -> None:
    world = World(6, 1000, EASY)
    candidate = world.scores(world.ours)
    candidate = replace(candidate, seen=candidate.test[["sha256", "group"]].iloc[:900])
    verdict = gate_verdict(candidate, world.scores(world.theirs), POLICY)
    assert (verdict.colour, verdict.rows, verdict.needs_reason) == ("inconclusive", 100, True)
    assert verdict.notes[0].startswith("900 of 1000 test pictures are left out: the candidate was trained or chosen on")


def test_what_the_champion_itself_has_seen_does_not_count_as_missing() -> None:
    world = World(6, 1000, EASY)
    champion = world.scores(world.theirs)
    champion = replace(champion, seen=champion.test[["sha256", "group"]].iloc[:300])
    verdict = gate_verdict(world.scores(world.ours), champion, POLICY)
    assert "700 of 700 test pictures of the champion are compared" in str(verdict.rules[0])


def test_other_classes_cover_nothing() -> None:
    world = World(6, 1000, EASY)
    candidate = world.scores(world.ours)
    renamed = {"classes": [item | {"name": f"other {item['name']}"} for item in candidate.classes["classes"]]}
    verdict = gate_verdict(replace(candidate, classes=renamed), world.scores(world.theirs), POLICY)
    assert verdict.needs_reason
    assert verdict.advice.startswith("say in a sentence"), "no test on the champion's pictures would help"
    assert "`--reason ... --yes`" in verdict.advice


def test_corrected_labels_are_named_as_the_cause_and_not_missing_pictures() -> None:
    """People correct a tenth of the test labels: the same pictures are all tested on again."""
    world = World(6, 1000, HARD)
    champion, candidate = world.scores(world.theirs), world.scores(world.ours)
    labels = [[0, 1, 2] if row < 100 else old for row, old in enumerate(candidate.test["labels"])]
    corrected = replace(candidate, test=candidate.test.assign(labels=labels))
    changed = sum(list(old) != new for old, new in zip(candidate.test["labels"][:100], labels[:100], strict=True))
    verdict = gate_verdict(corrected, champion, POLICY)
    all_there = "all test pictures of the champion are tested on again, but the labels of some were changed"
    assert verdict.causes == [f"{all_there}: {changed} of 1000"]
    assert verdict.advice.startswith("say in a sentence"), "all of the champion's pictures are there"
    fewer = gate_verdict(replace(corrected, test=corrected.test.iloc[:900]), champion, POLICY)
    assert fewer.notes[0] == f"{changed} of 1000 test pictures of the champion have other labels now"
    assert fewer.advice.startswith("test on the champion's pictures too")


def test_the_classes_that_fell_most_are_named_with_both_figures() -> None:
    world = World(9, 400, HARD)
    world.ours[:, 4] = world.ours[::-1, 4]
    precision = np.array(
        [
            [average_precision_score(world.labels[:, c], scores[:, c]) for c in range(len(BUCKETS))]
            for scores in (world.theirs, world.ours)
        ]
    )
    order = [c for c in np.argsort(precision[1] - precision[0]) if precision[1, c] < precision[0, c]]
    assert order[0] == 4
    assert world.verdict(range(400)).fell == tuple(
        f"class {c} {before:.1f} to {after:.1f}, {world.labels[:, c].sum()} test pictures"
        for c, (before, after) in ((c, 100 * precision[:, c]) for c in order[:5])
    )
    assert world.verdict(range(1)).fell == ()
    world.ours = world.theirs.copy()
    scores, positives = world.ours[:, 0], np.flatnonzero(world.labels[:, 0])
    last = positives[scores[positives].argmin()]
    scores[last] = np.nextafter(scores[scores < scores[last]].max(), np.float32(0))  # one rank down
    before, after = (100 * average_precision_score(world.labels[:, 0], of[:, 0]) for of in (world.theirs, world.ours))
    assert 0 < before - after < 0.05
    assert world.verdict(range(400)).fell == (), "a fall that the figures do not show"


def test_the_limit_is_the_policys_and_0_asks_for_nothing() -> None:
    world = World(7, 2000, EASY)
    candidate, champion = world.scores(world.ours, np.arange(1500)), world.scores(world.theirs)
    colours = {
        limit: gate_verdict(candidate, champion, POLICY.model_copy(update={"coverage": limit})).colour
        for limit in (0.0, 0.5, 0.99)
    }
    assert colours == {0.0: "green", 0.5: "green", 0.99: "inconclusive"}
    without = gate_verdict(candidate, champion, POLICY.model_copy(update={"coverage": 0.0}))
    assert not any("coverage" in rule.name for rule in without.rules)


@pytest.mark.slow
def test_simulated_promotions() -> None:
    """Worse by twice the margin, on sets of 20 to 2,000 rows that it chose: at most 2.5 % pass, and error.

    No more of equal ones are red.
    """
    sizes, ways = (20, 60, 200, 600, 2000), ("as they are", "shrunken", "overlapping", "grown", "shrunken to the best")
    colours: dict[str, Counter[str]] = {"worse": Counter(), "equal": Counter()}
    for number in range(200):
        size, way, skill = sizes[number % 5], ways[number // 5 % 5], (HARD, EASY)[number // 25 % 2]
        for kind, ours in (("worse", WORSE[skill]), ("equal", skill)):
            if kind == "equal" and size == 2000:
                continue  # they take longest, and test_verdict has such
            world = World(number, size, ours, skill)
            rng, everything = np.random.default_rng(number), np.arange(size)
            tested, before = {
                "as they are": (everything, everything),
                "shrunken": (np.sort(rng.permutation(size)[: size // 2]), everything),
                "overlapping": (everything[size // 4 :], everything[: -size // 4]),
                "grown": (everything, everything[: size // 2]),
                "shrunken to the best": (
                    np.sort(np.argsort(-world.gain(), kind="stable")[: int(0.9 * size)]),
                    everything,
                ),
            }[way]
            colours[kind][world.verdict(tested, before).colour] += 1
    most = {kind: 0.025 * n + 2 * np.sqrt(0.025 * 0.975 * n) for kind, n in (("worse", 200), ("equal", 160))}
    assert colours["worse"]["green"] <= most["worse"], colours
    assert colours["worse"]["red"] > 10, "a gate that never refuses would pass this test"
    assert colours["equal"]["red"] <= most["equal"], colours
    assert colours["equal"]["green"] > 2, "nor is one of use that never lets pass"


@pytest.mark.slow
def test_equal_ranks_on_few_pictures_are_no_proof() -> None:
    """A champion that is all but perfect: on sixty pictures a model that loses every twelfth positive often looks as
    good.
    """
    colours = [World(seed, 60, WORSE[EASY], EASY).verdict(np.arange(60), np.arange(60)).colour for seed in range(60)]
    assert colours.count("green") <= 1 + 0.025 * 60
    assert World(0, 2000, EASY, EASY).verdict(np.arange(2000)).colour == "green"


def test_the_files_of_the_stages_cover_themselves(make_outputs: Make) -> None:
    paths = make_outputs()
    scores = gate_scores(paths["split"], paths["evaluation"], read_classes(paths["split"] / "classes.json"), "")
    verdict = gate_verdict(scores, scores, POLICY)
    assert outcomes(verdict) == {"coverage": "pass", "coverage of the tail": "pass", "mAP": "pass", "tail": "pass"}
