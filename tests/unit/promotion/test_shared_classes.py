"""A candidate and a champion with other classes: those that both know are compared, and a person decides."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from capnet.contracts import read_classes
from capnet.promotion.gate import gate_verdict
from capnet.promotion.policy import Policy
from capnet.promotion.scores import GateScores, gate_scores

Make = Callable[..., dict[str, Path]]
POLICY = Policy(draws=200)


def scores_of(paths: dict[str, Path]) -> GateScores:
    return gate_scores(paths["split"], paths["evaluation"], read_classes(paths["split"] / "classes.json"), "")


def of_classes(scores: GateScores, order: list[int]) -> GateScores:
    """The same model if it knew these classes alone, in this order."""
    every = np.stack(scores.test["scores"])
    labels = [[order.index(c) for c in row if c in order] for row in scores.test["labels"]]
    items = [scores.classes["classes"][c] for c in order]
    test = scores.test.assign(labels=labels, scores=list(every[:, order]))
    return replace(scores, classes={**scores.classes, "classes": items}, test=test)


def noisy(scores: GateScores, *columns: int) -> GateScores:
    """A model that says nothing of some classes."""
    noise = np.stack(scores.test["scores"])
    noise[:, columns] = np.random.default_rng(0).random((len(noise), len(columns)))
    return replace(scores, test=scores.test.assign(scores=list(noise)))


def test_without_a_class_in_common_nothing_is_compared(make_outputs: Make) -> None:
    scores = scores_of(make_outputs())
    items = [{**item, "name": f"other {item['name']}"} for item in scores.classes["classes"]]
    verdict = gate_verdict(scores, replace(scores, classes={**scores.classes, "classes": items}), POLICY)
    assert verdict.notes[0].startswith("no class in common with the champion, so nothing can be compared (gone: other ")
    assert {rule.name for rule in verdict.rules} == {"coverage", "coverage of the tail"}
    assert (verdict.colour, verdict.needs_reason) == ("inconclusive", True)


@pytest.mark.parametrize(
    ("order", "changes"),
    [
        ([0, 1, 2], "gone: none; new: épée): compared by the 3 that both know"),
        ([2, 0, 1], "gone: none; new: épée): compared by the 3 that both know"),
    ],
)
def test_the_classes_that_both_know_are_compared(make_outputs: Make, order: list[int], changes: str) -> None:
    """The rules are those of two models that know these classes alone."""
    scores = scores_of(make_outputs(critical=("cat",)))
    champion = of_classes(scores, order)
    for candidate in (scores, noisy(scores, 1), noisy(scores, 0, 2)):
        verdict = gate_verdict(candidate, champion, POLICY)
        assert verdict.notes[0] == f"the champion knows other classes ({changes}"
        assert verdict.asks == verdict.notes[:1], "it needs a reason, green rules or not"
        expected = gate_verdict(of_classes(candidate, order), champion, POLICY)
        assert [rule.outcome for rule in verdict.rules] == [rule.outcome for rule in expected.rules]
        for rule, other in zip(verdict.rules, expected.rules, strict=True):
            bounds = (rule.value, rule.against, rule.low, rule.high)
            assert bounds == pytest.approx((other.value, other.against, other.low, other.high), nan_ok=True)
        assert {*verdict.fell} == {*expected.fell}
        assert verdict.colour == ("red" if expected.colour == "red" else "inconclusive")
    names = {rule.name for rule in verdict.rules}
    assert {"shared classes: mAP", "shared classes: tail", "critical class cat", "coverage"} <= names


def test_the_order_of_the_classes_does_not_count(make_outputs: Make) -> None:
    """The verdict is that on the same model with its classes in the candidate's order, pictures scored again too."""
    scores = scores_of(make_outputs(critical=("cat",)))
    turned, order = of_classes(scores, [2, 0, 3, 1]), [2, 0, 3, 1]
    few, turned_few = (replace(m, test=m.test.iloc[:200].reset_index(drop=True)) for m in (scores, turned))
    every = np.stack(scores.test["scores"])
    for candidate in (scores, noisy(scores, 1), noisy(scores, 0, 2)):
        assert repr(gate_verdict(candidate, turned, POLICY)) == repr(gate_verdict(candidate, scores, POLICY))
        again = gate_verdict(candidate, turned_few, POLICY, lambda rows: every[200:][:, order])
        assert repr(again) == repr(gate_verdict(candidate, few, POLICY, lambda rows: every[200:]))
    assert gate_verdict(scores, turned, POLICY).asks == (), "no reason is needed"


def test_a_new_class_does_not_hide_that_the_tail_fell(make_outputs: Make) -> None:
    scores = scores_of(make_outputs())
    champion = of_classes(scores, [0, 1, 2])
    tail = [number for number, item in enumerate(champion.classes["classes"]) if item["bucket"] == "tail"]
    verdict = gate_verdict(noisy(scores, *tail), champion, POLICY)
    assert verdict.colour == "red"
    assert "shared classes: tail" in [rule.name for rule in verdict.broken]
    only_new = gate_verdict(noisy(scores, 3), champion, POLICY)
    assert {rule.outcome for rule in only_new.rules} == {"pass"}, "the champion knows nothing of it"


def test_a_critical_class_that_is_gone_is_named_however_many_are(make_outputs: Make, tmp_path: Path) -> None:
    critical, usual = (
        scores_of(make_outputs(tmp_path / kind, critical=of)) for kind, of in (("a", ("cat",)), ("b", ()))
    )
    note = "critical classes of the champion that this version does not know: cat"
    for order in ([0, 2, 3], [0]):
        candidate = of_classes(critical, order)
        verdict = gate_verdict(candidate, critical, POLICY)
        assert (verdict.asks[-1], verdict.notes.count(note)) == (note, 1)
        assert note not in gate_verdict(candidate, usual, POLICY).notes
    items = [{**item, "name": f"other {item['name']}"} for item in critical.classes["classes"]]
    renamed = replace(critical, classes={**critical.classes, "classes": items})
    verdict = gate_verdict(renamed, critical, POLICY)
    assert (verdict.asks, verdict.notes[1:]) == ((note,), (note,))


def test_ten_thousand_classes_are_chosen_in_seconds() -> None:
    """Time that grows with the square of the classes would take half a minute here."""
    names, nothing = [f"class {number}" for number in range(10_000)], pd.DataFrame({"sha256": [], "group": []})
    items = [{"name": name, "bucket": "head", "critical": False} for name in names]
    test = nothing.assign(labels=[], unknown=[], scores=[])
    model = GateScores({"classes": items}, test, nothing)
    started = time.process_time()
    verdict = gate_verdict(model, replace(model, classes={"classes": items[:0:-1]}), POLICY)
    assert verdict.notes[0].endswith("(gone: none; new: class 0): compared by the 9999 that both know")
    verdict = gate_verdict(model, replace(model, classes={"classes": items[::-1]}), POLICY)
    assert verdict.notes == ("not comparable: no test picture is left",)
    assert time.process_time() - started < 5


def test_a_champion_of_other_classes_scores_pictures_that_are_new(make_outputs: Make) -> None:
    scores, order = scores_of(make_outputs(critical=("cat",))), [2, 0, 1]
    champion = of_classes(scores, order)
    part = replace(champion, test=champion.test.iloc[:200].reset_index(drop=True))
    every = np.stack(champion.test["scores"])
    verdict = gate_verdict(scores, part, POLICY, lambda rows: every[200:])
    assert {rule.difference for rule in verdict.rules if rule.name.startswith("shared classes")} == {0.0}
    verdict = gate_verdict(noisy(scores, 1), part, POLICY, lambda rows: every[200:])
    assert (verdict.colour, "critical class cat" in [rule.name for rule in verdict.broken]) == ("red", True)
    assert verdict.fell[0].startswith("cat ")


def test_too_few_pictures_of_the_champion_are_its_own_matter(make_outputs: Make) -> None:
    """Another list of classes is no reason to leave out pictures: a test on them would decide the rules."""
    scores = scores_of(make_outputs())
    candidate = replace(scores, test=scores.test.iloc[:100].reset_index(drop=True))
    verdict = gate_verdict(candidate, of_classes(scores, [0, 1, 2]), POLICY)
    assert (len(verdict.uncovered), verdict.causes) == (2, [])
    assert verdict.asks[0].startswith("the champion knows other classes")
    assert verdict.advice.startswith("test on the champion's pictures too")
