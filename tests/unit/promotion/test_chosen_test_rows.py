"""A candidate chooses its own test rows: no choice makes a worse one pass, and what it leaves out needs a reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from capnet.contracts import read_classes
from capnet.errors import GateError
from capnet.promotion import history, versions
from capnet.promotion import promote as promotion
from capnet.promotion.champion import resolve
from capnet.promotion.gate import GateScores, gate_scores, gate_verdict
from capnet.promotion.policy import Minimum, Policy
from capnet.promotion.verdict import Verdict

Make = Callable[..., dict[str, Path]]
Array = NDArray[np.floating]
POLICY = Policy(draws=200)
BUCKETS = ["head", "head", "head", "medium", "medium", "tail", "tail", "tail"]
PREVALENCE = np.array([0.4, 0.3, 0.25, 0.2, 0.15, 0.12, 0.1, 0.08])
HARD, EASY = 2.5, 6.0  # how far a champion's positives stand from the others: mAP 0.87 and 1.00
WORSE = {HARD: 2.3, EASY: 3.2}  # mAP lower by 0.04 and more: twice the margin
NOTHING = pd.DataFrame({"sha256": [], "group": []}, dtype=object)


class World:
    """Pictures, and the scores of a champion and of another model on them; both find the same pictures hard."""

    def __init__(self, seed: int, size: int, ours: float, theirs: float = HARD) -> None:
        rng = np.random.default_rng([seed, size])
        shape = (size, len(BUCKETS))
        self.labels = rng.random(shape) < PREVALENCE
        shared, mine, other = (rng.standard_normal(shape) for _ in range(3))
        self.ours, self.theirs = (
            (1 / (1 + np.exp(-(self.labels * skill + np.sqrt(0.8) * shared + np.sqrt(0.2) * own - 3)))).astype(
                np.float32
            )
            for skill, own in ((ours, mine), (theirs, other))
        )

    def scores(self, of: Array, rows: Sequence[int] | NDArray[np.int64] | None = None) -> GateScores:
        """What one model's run keeps, tested on these rows only."""
        chosen = np.arange(len(of)) if rows is None else np.asarray(rows, dtype=np.int64)
        labels = [np.flatnonzero(self.labels[n]) for n in chosen]
        columns = {"sha256": [f"{n:064}" for n in chosen], "labels": labels, "unknown": [[]] * len(chosen), "group": ""}
        items = [{"name": f"class {c}", "bucket": bucket, "critical": False} for c, bucket in enumerate(BUCKETS)]
        return GateScores({"classes": items}, pd.DataFrame(columns).assign(scores=[of[n] for n in chosen]), NOTHING)

    def verdict(
        self,
        tested: Sequence[int] | NDArray[np.int64],
        champion_tested: NDArray[np.int64] | None = None,
        rescored: bool = True,
    ) -> Verdict:
        """``tested``: the rows that the candidate was tested on; the champion scores what it was not tested on where
        ``rescored``.
        """

        def rescore(rows: pd.DataFrame) -> Array:
            return self.theirs[rows["sha256"].astype(int)]

        champion = self.scores(self.theirs, champion_tested)
        return gate_verdict(self.scores(self.ours, tested), champion, POLICY, rescore if rescored else None)

    def gain(self) -> Array:
        """[picture], how much each one speaks for the candidate: what its labels add to the sums of precision."""
        return self._precision(self.ours) - self._precision(self.theirs)

    def _precision(self, scores: Array) -> Array:
        found = np.zeros(self.labels.shape)
        for c, given in enumerate(self.labels.T):
            order = np.argsort(-scores[:, c], kind="stable")
            found[order, c] = (
                given[order] * np.cumsum(given[order]) / np.arange(1, len(order) + 1) / max(1, given.sum())
            )
        return found.sum(axis=1)


def outcomes(verdict: Verdict) -> dict[str, str]:
    return {rule.name: rule.outcome for rule in verdict.rules}


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_a_test_set_of_a_few_pictures_passes_nothing(rows: int) -> None:
    world = World(0, 400, WORSE[EASY], EASY)
    positive = np.argsort(-world.labels.sum(axis=1), kind="stable")[:rows]
    verdict = world.verdict(positive, positive)  # also where the champion was tested on no more
    assert verdict.colour != "green"
    assert "pass" not in {outcome for name, outcome in outcomes(verdict).items() if "coverage" not in name}
    if rows == 1:
        assert verdict.colour == "inconclusive"
        assert "10 are needed to decide" in str(verdict.rules[-1])


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


def test_grown_test_sets_stay_fine() -> None:
    world = World(3, 4000, EASY)
    verdict = world.verdict(np.arange(4000), np.arange(2000))
    assert (verdict.colour, verdict.rows, verdict.needs_reason) == ("green", 4000, False)
    verdict = world.verdict(np.arange(4000), np.arange(2000), rescored=False)
    assert (verdict.colour, verdict.rows, verdict.needs_reason) == ("inconclusive", 2000, False)
    assert {*outcomes(verdict).values()} == {"pass"}
    assert verdict.notes == ("the champion has no scores for 2000 of 4000 test pictures, which are left out",)


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


def test_equal_ranks_on_few_pictures_are_no_proof() -> None:
    """A champion that is all but perfect: on sixty pictures a model that loses every twelfth positive often looks as
    good.
    """
    colours = [World(seed, 60, WORSE[EASY], EASY).verdict(np.arange(60), np.arange(60)).colour for seed in range(60)]
    assert colours.count("green") <= 1 + 0.025 * 60
    assert World(0, 2000, EASY, EASY).verdict(np.arange(2000)).colour == "green"


# ---------------------------------------------------------------- who promotes it


def promote(client: MlflowClient, number: str, answer: bool = True, reason: str = "") -> promotion.Outcome:
    version = client.get_model_version("capnet", number)
    return promotion.promote(client, version, POLICY, lambda verdict: answer, reason=reason)


@pytest.fixture
def shrunken(client: MlflowClient, make_outputs: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """Version 1 is champion; version 3 was tested on half of its pictures."""
    promote(client, "1")
    third = client.get_model_version("capnet", "3")
    known = promotion.scores_of

    def half(asked: MlflowClient, version: object) -> GateScores:
        found = known(asked, version)  # type: ignore[arg-type]
        return (
            replace(found, test=found.test.iloc[::2].reset_index(drop=True))
            if getattr(version, "version", "") == third.version
            else found
        )

    monkeypatch.setattr(promotion, "scores_of", half)
    return client


def test_a_person_must_give_a_reason_which_stays(shrunken: MlflowClient) -> None:
    for reason in ("", "  "):
        with pytest.raises(GateError, match=r"needs --reason") as caught:
            promote(shrunken, "3", reason=reason)
        assert "200 of 400 test pictures of the champion are compared" in str(caught.value)
        assert str(versions.champion_of(shrunken, "capnet").version) == "1"  # type: ignore[union-attr]
    with pytest.raises(GateError, match="nobody confirmed"):
        promote(shrunken, "3", answer=False, reason="the old camera is gone")
    assert promote(shrunken, "3", reason="the old camera is gone").now == "3"
    last = history.events(shrunken, "capnet")[-1]
    assert (last.kind, last.verdict, last.reason) == ("promoted", "inconclusive", "the old camera is gone")
    assert str(resolve(shrunken, "models:/capnet@champion").version) == "3"


def test_a_click_needs_the_reason_too(shrunken: MlflowClient) -> None:
    with pytest.raises(GateError):
        promote(shrunken, "3")  # tags the verdict
    shrunken.set_registered_model_alias("capnet", "champion", "3")
    with pytest.raises(GateError, match="inconclusive: coverage"):
        resolve(shrunken, "models:/capnet@champion")
    assert "200 of 400 test pictures of the champion" in promotion.audit(shrunken, "capnet").refused
    shrunken.set_model_version_tag("capnet", "3", "gate_override", "the old camera is gone")
    assert str(resolve(shrunken, "models:/capnet@champion").version) == "3"


def test_the_files_of_the_stages_cover_themselves(make_outputs: Make) -> None:
    paths = make_outputs()
    scores = gate_scores(paths["split"], paths["evaluation"], read_classes(paths["split"] / "classes.json"))
    verdict = gate_verdict(scores, scores, POLICY)
    assert outcomes(verdict) == {"coverage": "pass", "coverage of the tail": "pass", "mAP": "pass", "tail": "pass"}
