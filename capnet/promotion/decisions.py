"""Do a candidate's labels keep what was asked of them as well as the champion's? Average precision knows no threshold.

Thresholds are chosen from few images, so two equally good models differ in their labels more than in their rankings.
Therefore nothing has to be shown here, and nothing is refused: a fall that chance in the test images does not explain
needs the reason of a person.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from capnet.config.results import Threshold
from capnet.errors import some
from capnet.evaluation.metrics import Bools, Counts, Floats, class_f1, count, mean_over, precision, recall
from capnet.promotion.compared_rows import ComparedRows, paired
from capnet.promotion.non_inferiority import Evidence, judge
from capnet.promotion.policy import Policy
from capnet.promotion.verdict import CRITICAL, FEWER_KEPT, FORMER_TAIL, Rule

F1_OF_ALL = "F1 at the thresholds, all classes"
NEVER_GIVEN = "; a class that is never given counts as 0"
NOT_CHOSEN = "nothing"  # the objective where there were no images to choose thresholds on


@dataclass(frozen=True)
class GateThresholds:
    """Thresholds float32 [class], in the unit of scores, and the objective that each was chosen for, or NOT_CHOSEN."""

    thresholds: NDArray[np.float32]
    objectives: tuple[str, ...]


Pair = tuple[GateThresholds | None, GateThresholds | None]  # of the candidate and of the champion


def gate_thresholds(classes: Sequence[Mapping[str, Any]]) -> GateThresholds | None:
    """The thresholds of gate.json's ``classes``; None where it was written before they were kept there.

    Raises:
        ValueError: some classes have one and others not, one is no threshold, or it was chosen for no known objective.
    """
    kinds = {(type(item.get("threshold")), type(item.get("objective"))) for item in classes}
    if kinds == {(type(None), type(None))}:
        return None
    if kinds != {(float, str)} or not all(0 <= item["threshold"] <= 1 for item in classes):
        raise ValueError("every class needs a threshold from 0 to 1 and its objective, or none has one")
    for objective in {item["objective"] for item in classes} - {NOT_CHOSEN}:
        try:
            Threshold(objective=objective)
        except ValidationError:
            raise ValueError(f"thresholds were chosen for {objective!r}, which is no objective") from None
    thresholds = np.array([item["threshold"] for item in classes], dtype=np.float32)
    return GateThresholds(thresholds, tuple(_spelled(item["objective"]) for item in classes))


def _spelled(objective: str) -> str:
    """One spelling for one objective: recall>=0.90 asks for what recall>=0.9 does."""
    kind, _, share = objective.partition(">=")
    return f"{kind}>={float(share)}" if share else kind


def other_objectives(cuts: Pair) -> tuple[str, ...]:
    """Why a person must give a reason: labels that follow another objective are no better and no worse than before.

    Args:
        cuts: of two models with the same classes.
    """
    ours, theirs = cuts
    if theirs is None:
        return ()
    if ours is None:
        return ("the champion has thresholds among its scores for the gate, and this version has none",)
    pairs = sorted(set(zip(ours.objectives, theirs.objectives, strict=True)))
    changed = [f"{now} instead of {before}" for now, before in pairs if now != before]
    return (f"thresholds were chosen for {some(changed)}",) if changed else ()


def worse_decisions(
    rows: ComparedRows, candidate: Floats, champion: Floats, cuts: Pair, policy: Policy, times: int = 1
) -> list[Rule]:
    """Rules on the labels given at the thresholds where they are worse, each inconclusive; none where they are not.

    Each class is measured by what its thresholds were chosen for: F1, or a recall or a precision up to the one that was
    asked for. There are rules for all classes, the tail (and the champion's), and every critical class; and one for the
    F1 of all, because a recall is reached by every label, and a precision by hardly any. A class that has another
    objective now is left out, see ``other_objectives``.

    Args:
        rows: test rows that both have scores for.
        candidate, champion: scores [image, class].
        cuts: thresholds of both; where one has none, nothing is compared.
        policy: ``may_fall.critical`` is the margin of all of them: labels differ more from training to training than
            rankings do.
        times: how often one verdict asks these rules, of different images.
    """
    ours, theirs = cuts
    if ours is None or theirs is None:
        return []
    decisions = [scores >= cut.thresholds for scores, cut in ((candidate, ours), (champion, theirs))]
    same = np.array(ours.objectives) == np.array(theirs.objectives)
    masks = {
        name: (objective, mask)
        for objective in dict.fromkeys(theirs.objectives)
        for name, mask in _masks(rows, objective, same & (np.array(theirs.objectives) == objective)).items()
    }
    masks[F1_OF_ALL] = "f1", same

    def rates(decided: Bools, weights: Floats) -> dict[str, Floats]:
        counts = count(rows.labels, decided, weights, rows.known)
        kept = {objective: _kept(objective, counts) for objective, _ in masks.values()}
        return {name: mean_over(kept[objective], mask) for name, (objective, mask) in masks.items()}

    compared = paired(rows, (), policy, lambda weights: [rates(decided, weights) for decided in decisions])
    margin, questions = policy.may_fall.critical, times * len(masks)
    rules = [
        judge(name, *compared[name], margin, Evidence.of(rows, mask, questions)) for name, (_, mask) in masks.items()
    ]
    notes = {name: NEVER_GIVEN if objective.startswith("precision") else "" for name, (objective, _) in masks.items()}
    return [
        replace(rule, outcome="inconclusive", note=FEWER_KEPT + notes[rule.name]) for rule in rules if rule.is_below
    ]


def _kept(objective: str, counts: Counts) -> Floats:
    """How much of an objective is reached [class, draw]; NaN without positives."""
    kind, _, share = objective.partition(">=")
    if not share:  # F1, which also says most where thresholds were chosen for NOT_CHOSEN
        return class_f1(counts)
    if kind == "recall":
        return np.minimum(recall(counts), float(share))
    # a class that is never given has no wrong label and is of no use; left out, giving less would always be better
    kept = np.where(counts.predicted > 0, precision(counts), 0.0)
    return np.where(counts.true > 0, np.minimum(kept, float(share)), np.nan)


def _masks(rows: ComparedRows, objective: str, chosen: Bools) -> dict[str, Bools]:
    """What is compared of the ``chosen`` classes: bool [class] by the name of its rule."""
    rate = objective if ">=" in objective else "F1"
    means = {"all classes": np.ones(len(rows.names), dtype=bool), "tail": np.array(rows.buckets) == "tail"}
    if rows.former_tail is not None:
        means[FORMER_TAIL] = rows.former_tail
    masks = {f"{rate} at the thresholds, {name}": mask & chosen for name, mask in means.items()}
    for c in np.flatnonzero(rows.critical & chosen):
        masks[f"{CRITICAL} {rows.names[int(c)]}, {rate} at its threshold"] = np.arange(len(rows.names)) == c
    return {name: mask for name, mask in masks.items() if mask.any()}
