"""Labels given at the thresholds: a candidate that ranks as the champion does may still name less."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mlflow.tracking import MlflowClient
from sklearn.metrics import f1_score, precision_score, recall_score
from unit.promotion.made_world import POLICY, World
from unit.promotion.promoting import champion, champion_scores, click, promote, submit
from unit.promotion.worse_tables import BAD

from capnet.config.results import Threshold
from capnet.contracts import read_classes, read_json, write_json
from capnet.errors import GateError
from capnet.evaluation.bootstrap import draw_weights, interval
from capnet.evaluation.thresholds import choose_thresholds
from capnet.promotion.champion import check_champion
from capnet.promotion.gate import gate_verdict
from capnet.promotion.scores import GateScores, gate_scores
from capnet.promotion.verdict import Verdict

Make = Callable[..., dict[str, Path]]
TAIL = [5, 6, 7]


def _with(model: GateScores, thresholds: list[float], objective: str = "f1", critical: int = -1) -> GateScores:
    items = [
        {**item, "threshold": float(np.float32(cut)), "objective": objective, "critical": n == critical}
        for n, (item, cut) in enumerate(zip(model.classes["classes"], thresholds, strict=True))
    ]
    return replace(model, classes={**model.classes, "classes": items})


def _verdict(ours: list[float], theirs: list[float], objective: str = "f1", critical: int = -1) -> Verdict:
    """Of two models that differ by their thresholds alone."""
    scores = WORLD.scores(WORLD.theirs)
    now, before = (_with(scores, cuts, objective, critical) for cuts in (ours, theirs))
    return gate_verdict(now, before, POLICY)


WORLD = World(1, 1500, 2.5)
USUAL = [0.3] * 8


def test_the_same_thresholds_pass_and_say_nothing() -> None:
    verdict = _verdict(USUAL, USUAL)
    assert (verdict.colour, verdict.needs_reason) == ("green", False)
    assert {rule.name for rule in verdict.rules} == {"coverage", "coverage of the tail", "mAP", "tail"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("objective", "rate"),
    [("f1", f1_score), ("recall>=0.7", recall_score), ("precision>=0.6", precision_score)],
)
@pytest.mark.parametrize("cut", [0.8, 0.05, 1.0])
def test_what_is_kept_less_is_measured_as_by_scikit_learn(
    objective: str, rate: Callable[..., float], cut: float
) -> None:
    bound = float(objective.partition(">=")[2] or 1)
    ours = [*USUAL[:5], cut, cut, cut]
    rules = [r for r in _verdict(ours, USUAL, objective, critical=6).rules if "threshold" in r.name]

    def mean(thresholds: list[float], name: str, weights: np.ndarray | None = None) -> float:
        given = WORLD.theirs >= np.array(thresholds, dtype=np.float32)
        measure, most = (f1_score, 1.0) if name.startswith("F1") else (rate, bound)
        rates = [
            measure(WORLD.labels[:, c], given[:, c], sample_weight=weights, zero_division=0.0) for c in expected[name]
        ]
        return float(np.mean(np.minimum(rates, most)))

    named = "F1" if objective == "f1" else objective
    critical = f"critical class class 6, {named} at its threshold"
    expected = {
        "F1 at the thresholds, all classes": list(range(8)),
        f"{named} at the thresholds, all classes": list(range(8)),
        f"{named} at the thresholds, tail": TAIL,
        critical: [6],
    }
    falls = {name for name in expected if mean(ours, name) < mean(USUAL, name) - 0.1}
    assert falls <= {rule.name for rule in rules} <= expected.keys()
    for rule in rules:
        assert rule.outcome == "inconclusive"
        assert "a person decides" in rule.note
        is_precision = objective.startswith("precision") and not rule.name.startswith("F1")
        assert ("never given counts as 0" in rule.note) == is_precision
        assert (rule.value, rule.against) == pytest.approx((mean(ours, rule.name), mean(USUAL, rule.name)), abs=1e-6)
        assert rule.low <= rule.difference <= rule.high < -POLICY.may_fall.critical
        if rule.name == critical:
            drawn = [
                mean(ours, critical, weights) - mean(USUAL, critical, weights)
                for block in draw_weights(np.arange(1500), POLICY.draws, 50, POLICY.seed)
                for weights in block.T
            ]
            ends = interval(np.array(drawn), rule.difference, (-1, 1))
            assert (rule.low, rule.high) == pytest.approx(ends, abs=1e-4)


@pytest.mark.parametrize("falls", [True, False])
def test_a_recall_needs_no_picture_that_does_not_show_the_class(falls: bool) -> None:
    """Class 6 is unknown on all pictures that do not show it: it has no average precision, and its recall falls."""
    scores = WORLD.scores(WORLD.theirs)
    scores = replace(scores, test=scores.test.assign(unknown=[[] if row[6] else [6] for row in WORLD.labels]))
    cuts = [*USUAL[:6], 0.9 if falls else 0.3, 0.3]
    verdict = gate_verdict(_with(scores, cuts, "recall>=0.9", 6), _with(scores, USUAL, "recall>=0.9", 6), POLICY)
    rules = {rule.name: rule for rule in verdict.rules}
    assert rules["critical class class 6"].note == "positive or negative test pictures are missing"
    name = "critical class class 6, recall>=0.9 at its threshold"
    assert (name in rules, verdict.needs_reason) == (falls, falls)
    if falls:
        expected = [recall_score(WORLD.labels[:, 6], WORLD.theirs[:, 6] >= np.float32(cut)) for cut in (0.9, 0.3)]
        assert (rules[name].value, rules[name].against) == pytest.approx([min(rate, 0.9) for rate in expected])


@pytest.mark.parametrize(("objective", "share"), [("recall>=0.9", 0.0), ("precision>=0.4", 0.9)])
def test_an_objective_that_is_reached_at_any_price_is_asked_about(objective: str, share: float) -> None:
    """Every label on every picture reaches a recall, the labels of one positive in ten a precision."""
    cuts = [float(np.quantile(WORLD.theirs[WORLD.labels[:, c], c], share)) for c in range(8)]
    verdict = _verdict([0.0] * 8 if share == 0 else cuts, USUAL, objective)
    assert [rule.name for rule in verdict.likely] == ["F1 at the thresholds, all classes"]
    assert verdict.needs_reason


def test_a_promise_that_is_still_kept_is_no_fall() -> None:
    """Recall 1 and recall 0.8 both reach 0.7."""
    cuts = [float(np.quantile(WORLD.theirs[WORLD.labels[:, c], c], 0.2)) for c in range(8)]
    assert _verdict(cuts, [0.0] * 8, "recall>=0.7").colour == "green"
    assert _verdict(cuts, [0.0] * 8, "recall>=0.95").colour == "inconclusive"


def test_a_score_at_the_threshold_is_a_label_that_is_given() -> None:
    """Scores of a model in half precision, or of few views, often equal the one that a threshold was taken from."""
    scores = WORLD.scores(np.where(WORLD.theirs >= 0.3, 0.75, 0.25).astype(np.float32))
    verdict = gate_verdict(_with(scores, [0.75] * 8), _with(scores, [0.5] * 8), POLICY)
    assert (verdict.colour, verdict.likely) == ("green", [])


def test_another_objective_needs_a_reason_and_is_not_measured() -> None:
    scores = WORLD.scores(WORLD.theirs)
    now = _with(scores, [0.99] * 8, "precision>=0.95")
    verdict = gate_verdict(now, _with(scores, USUAL, "f1"), POLICY)
    assert verdict.asks == ("thresholds were chosen for precision>=0.95 instead of f1",)
    assert (verdict.colour, verdict.needs_reason) == ("inconclusive", True)
    assert not [rule for rule in verdict.rules if "threshold" in rule.name]


@pytest.mark.parametrize("spelling", ["recall>=0.90", "recall>= 0.9", "recall>=9e-1"])
def test_an_objective_that_is_spelled_otherwise_is_the_same(spelling: str) -> None:
    scores = WORLD.scores(WORLD.theirs)
    before = _with(scores, [0.1] * 8, "recall>=0.9")
    assert gate_verdict(_with(scores, [0.1] * 8, spelling), before, POLICY).colour == "green"
    fallen = gate_verdict(_with(scores, [0.9] * 8, spelling), before, POLICY)
    named = {f"recall>=0.9 at the thresholds, {part}" for part in ("all classes", "tail")}
    assert {rule.name for rule in fallen.likely} == named | {"F1 at the thresholds, all classes"}


def test_models_of_before_are_compared_by_their_rankings() -> None:
    plain = WORLD.scores(WORLD.theirs)
    verdict = gate_verdict(_with(plain, [1.0] * 8), plain, POLICY)
    assert verdict.colour == "green"
    assert "the champion has no thresholds among its scores for the gate, so no labels are compared" in verdict.notes
    verdict = gate_verdict(plain, _with(plain, USUAL), POLICY)
    assert (verdict.needs_reason, verdict.asks) == (
        True,
        ("the champion has thresholds among its scores for the gate, and this version has none",),
    )


def test_added_pictures_do_not_hide_a_fall() -> None:
    """Both models give easy pictures their labels at any threshold."""
    n, easy = 1500, np.tile(np.eye(8, dtype=bool), (2000, 1))
    grown = World(1, n, 2.5)
    grown.labels = np.vstack([WORLD.labels, easy])
    grown.theirs = np.vstack([WORLD.theirs, np.where(easy, np.float32(1), np.float32(0))])
    ours, theirs = [0.7] * 8, USUAL
    verdict = gate_verdict(
        _with(grown.scores(grown.theirs), ours),
        _with(grown.scores(grown.theirs, list(range(n))), theirs),
        POLICY,
        lambda rows: grown.theirs[rows["sha256"].astype(int)],
    )
    assert [rule.name for rule in verdict.likely] == [
        f"F1 at the thresholds, {part} on the champion's test pictures" for part in ("all classes", "tail")
    ]


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["f1", "recall>=0.9"])
def test_equally_good_models_are_never_refused_for_their_thresholds(objective: str) -> None:
    asked = 0
    for seed in range(12):
        held_out, tested = World(seed, 300, 2.5), World(100 + seed, 600, 2.5)
        every = np.ones_like(held_out.labels)
        cuts = [
            choose_thresholds(held_out.labels, every, scores, objective, 10, 10.0).threshold.tolist()
            for scores in (held_out.ours, held_out.theirs)
        ]
        models = [
            _with(tested.scores(scores), cut, objective)
            for scores, cut in zip((tested.ours, tested.theirs), cuts, strict=True)
        ]
        verdict = gate_verdict(models[0], models[1], POLICY)
        assert verdict.colour != "red"
        asked += bool(verdict.likely)
    assert asked <= 2


def test_the_gate_keeps_the_thresholds_that_serve(make_outputs: Make) -> None:
    paths = make_outputs(critical=("cat",))
    classes = read_classes(paths["split"] / "classes.json")
    chosen = gate_scores(paths["split"], paths["evaluation"], classes, "").thresholds
    assert chosen is not None
    kept = [item["threshold"] for item in read_json(paths["evaluation"] / "thresholds.json")["classes"]]
    assert chosen.thresholds.tolist() == kept
    assert set(chosen.objectives) == {Threshold().objective}


def test_a_threshold_that_somebody_wrote_as_a_whole_number_is_one(make_outputs: Make) -> None:
    """thresholds.json is read with it."""
    paths = make_outputs()
    classes, path = read_classes(paths["split"] / "classes.json"), paths["evaluation"] / "thresholds.json"
    content = read_json(path)
    content["classes"][0]["threshold"] = 1
    write_json(path, content)
    chosen = gate_scores(paths["split"], paths["evaluation"], classes, "").thresholds
    assert chosen is not None
    assert chosen.thresholds[0] == 1


def test_thresholds_that_were_not_chosen_keep_no_promise(make_outputs: Make) -> None:
    """Without validation pictures and out-of-fold scores every class has 0.5, whatever the settings ask for."""
    paths = make_outputs()
    classes, path = read_classes(paths["split"] / "classes.json"), paths["evaluation"] / "thresholds.json"
    asked = read_json(path) | {"objective": "recall>=0.9"}
    write_json(path, asked)
    before = gate_scores(paths["split"], paths["evaluation"], classes, "")
    write_json(path, asked | {"source": "none"})
    now = gate_scores(paths["split"], paths["evaluation"], classes, "")
    verdict = gate_verdict(now, before, POLICY)
    assert verdict.asks == ("thresholds were chosen for nothing instead of recall>=0.9",)
    assert gate_verdict(now, now, POLICY).asks == ()


def test_thresholds_that_were_not_chosen_are_measured_by_f1() -> None:
    names = {rule.name for rule in _verdict([0.99] * 8, USUAL, "nothing").likely}
    assert names == {"F1 at the thresholds, all classes", "F1 at the thresholds, tail"}


def test_a_model_that_names_nothing_is_not_promoted_without_a_reason(client: MlflowClient, tmp_path: Path) -> None:
    promote(client, "1")
    theirs = champion_scores(client)
    items = [item | {"threshold": 1.0} for item in theirs.classes["classes"]]
    silent = replace(theirs, classes={**theirs.classes, "classes": items, "content_hash": BAD})
    number = submit(client, silent, tmp_path / "gate")
    with pytest.raises(GateError, match="needs --reason"):
        promote(client, number, lambda _: True)
    click(client, number)
    with pytest.raises(GateError, match="champion is capnet version"):
        check_champion(client.get_model_version("capnet", number), client)
    click(client, "1")
    assert promote(client, number, lambda _: True, reason="few false alarms are wanted").now == number
    assert champion(client) == number
