"""The gate's arithmetic: paired bootstrap tests of non-inferiority with three outcomes. Arrays in, rules out; no files,
no store.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from capnet.errors import counted
from capnet.evaluation.bootstrap import MIN_POSITIVES, UNSEEN, interval, positive_units, unseen
from capnet.evaluation.metrics import (
    Bools,
    Floats,
    Rankings,
    bucket_masks,
    mean_over,
    measurable,
    rank,
    weighted_average_precision,
)
from capnet.promotion.compared_rows import ComparedRows, draws_of, paired
from capnet.promotion.policy import Policy
from capnet.promotion.verdict import CRITICAL, FORMER_TAIL, LIKELY, MINIMUM, NO_INTERVAL, Outcome, Rule

REFUSED = 1e-6  # chance at which an equal model may be refused, by all rules of one comparison together
ONE_GROUP = "all test pictures are of one group, so chance and a difference look alike"


@dataclass(frozen=True)
class Evidence:
    """What a rule rests on. ``positive_images``: of each class; ``positives``: the same with those of one group
    counted once; ``units``: images or groups; ``questions``: rules that are asked together; ``same``: both models
    gave the very same scores.
    """

    positive_images: int
    positives: int
    units: int
    grouped: bool
    questions: int
    same: bool = False

    @classmethod
    def of(cls, rows: ComparedRows, mask: Bools, questions: int, same: bool = False) -> Evidence:
        """Of the classes in ``mask``, bool [class]."""
        positive = (rows.labels & rows.known)[:, mask]
        positives = int(positive_units(positive, rows.units).sum())
        units = len(np.unique(rows.units))
        return cls(int(positive.sum()), positives, units, units < len(rows.units), questions, same)

    def shows_fall(self, difference: float, spread: float, margin: float) -> bool:
        """Is the fall beyond the margin, whatever chance picks at UNSEEN for all questions together?

        ``spread`` is the standard deviation of the difference over the draws.
        """
        return difference + self.reach(UNSEEN, spread) < -margin

    def beyond_doubt(self, difference: float, spread: float, margin: float) -> bool:
        """Is the fall shown, and is an equal model ruled out at REFUSED, for all questions together?"""
        return self.shows_fall(difference, spread, margin) and difference + self.reach(REFUSED, spread) < 0

    def reach(self, chance: float, spread: float) -> float:
        """How far chance moves a difference upwards, at a chance that all questions share (Bonferroni).

        Draws of few images spread less than what they stand for: hence Student's t, and what so few cannot show.
        """
        from scipy.special import stdtrit

        each = chance / self.questions
        t = float(stdtrit(max(1, min(self.units, self.positives) - 1), 1 - each))
        return max(t * spread, unseen(self.positives, UNSEEN / self.questions))


def by_interval(low: float, high: float, margin: float) -> Outcome:
    """Non-inferior where the whole interval of the difference is above -margin, inferior where it is below, else not
    known. ``judge`` has the last word: it knows how much the interval rests on.
    """
    if low > -margin:
        return "pass"
    return "fail" if high < -margin else "inconclusive"


def coverage(name: str, compared: int, tested: int, what: str, policy: Policy) -> list[Rule]:
    """The rule that enough of the champion's own test is repeated: ``compared`` of ``tested``, which ``what`` says in
    words; none where nothing is asked for or there was nothing.
    """
    required = policy.coverage
    if required <= 0 or not tested:
        return []
    share = compared / tested
    outcome: Outcome = "pass" if share >= required else "inconclusive"
    note = f"{compared} of {tested} {what} are compared"
    return [Rule(name, outcome, share, required, share - required, *NO_INTERVAL, 0.0, note)]


def minimum(rows: ComparedRows, scores: Floats, policy: Policy) -> list[Rule]:
    """The rule on the candidate alone, by its ``scores`` [image, class]; none where nothing is asked for."""
    required = policy.minimum.mAP
    if required <= 0:
        return []
    ranking = rank(rows.labels, scores, rows.known)
    point = float(mean_over(weighted_average_precision(ranking, np.ones((len(scores), 1))))[0])
    draws = np.concatenate(
        [mean_over(weighted_average_precision(ranking, weights)) for weights in draws_of(rows, [ranking], policy)]
    )
    evidence = Evidence.of(rows, measurable(rows.labels, rows.known), 1)
    return [judge(MINIMUM, point, required, draws - required, 0.0, evidence)]


def non_inferiority(
    rows: ComparedRows, candidate: Floats, champion: Floats, policy: Policy, times: int = 1
) -> list[Rule]:
    """mAP, the mean of the tail (and of the champion's, where it had another) and every critical class, each as a
    paired test on the same draws of images (or groups).

    Scores are [image, class]; ``times``: how often one verdict asks these rules, of different images. A critical
    class, and a mean over all its classes, needs MIN_POSITIVES labels to pass or fail: below, the interval is too
    narrow to be believed, so the rule is inconclusive. So is every rule where all images are of one group. Only a
    model with the very scores of the other is as good beyond that, whatever chance picks.
    """
    rankings = [rank(rows.labels, scores, rows.known) for scores in (candidate, champion)]
    masks = {name: mask for name, mask in bucket_masks(list(rows.buckets)).items() if name in ("mAP", "tail")}
    if rows.former_tail is not None:
        masks[FORMER_TAIL] = rows.former_tail
    for c in np.flatnonzero(rows.critical):
        masks[f"{CRITICAL} {rows.names[int(c)]}"] = np.arange(len(rows.names)) == c

    def means(ranking: Rankings, weights: Floats) -> dict[str, Floats]:
        precisions = weighted_average_precision(ranking, weights)
        return {name: mean_over(precisions, mask) for name, mask in masks.items()}

    compared = paired(rows, rankings, policy, lambda weights: [means(ranking, weights) for ranking in rankings])
    fall, questions = policy.may_fall, times * len(masks)
    margins = {"mAP": fall.mAP, "tail": fall.tail, FORMER_TAIL: fall.tail}
    same = bool(np.array_equal(candidate[rows.known], champion[rows.known]))
    ranked = measurable(rows.labels, rows.known)
    return [
        judge(
            name,
            *compared[name],
            fall.critical if name.startswith(CRITICAL) else margins[name],
            Evidence.of(rows, mask & ranked, questions, same),
        )
        for name, mask in masks.items()
    ]


def judge(name: str, value: float, against: float, draws: Floats, margin: float, evidence: Evidence) -> Rule:
    """One rule: asks for positives before anything can pass, and for more than a 95 % interval before anything fails.
    Too few positives for either may still show that the model is probably below.

    Args:
        name: of the rule.
        value, against: of both models, on all rows.
        draws: [draw], their difference.
        margin: how far ``value`` may be below.
        evidence: what the difference rests on.
    """

    def rule(outcome: Outcome, low: float, high: float, note: str = "") -> Rule:
        return Rule(name, outcome, value, against, difference, low, high, margin, note, shown)

    difference, positives, shown = value - against, evidence.positives, False
    if not np.isfinite(difference):
        return rule("inconclusive", *NO_INTERVAL, "positive or negative test pictures are missing")
    spread = float(np.nanstd(draws))
    shown = evidence.units > 1 and evidence.shows_fall(difference, spread, margin)
    low, high = NO_INTERVAL if evidence.units < 2 else interval(draws, difference, (-1.0, 1.0))
    if evidence.same and evidence.positive_images >= MIN_POSITIVES:
        return rule("pass", difference, difference)
    if evidence.units < 2 and evidence.positive_images >= MIN_POSITIVES:
        return rule("inconclusive", *NO_INTERVAL, ONE_GROUP)
    shortage = f"only {counted(positives, 'positive test picture')}"
    if evidence.grouped:
        shortage = f"only {counted(positives, 'positive')} of {counted(evidence.units, 'test group')}"
        shortage += ", counted once for each class and group"
    if positives < MIN_POSITIVES:
        few = f"{shortage}, {MIN_POSITIVES} are needed to decide"
        return rule("inconclusive", low, high, f"{LIKELY}: {few}" if shown else few)
    outcome, hidden = by_interval(low, high, margin), unseen(positives)
    if outcome == "pass" and difference - hidden <= -margin:  # draws of few show less than others would
        note = f"{shortage}: a difference of {100 * hidden:.1f} can stay unseen, more are needed"
        return rule("inconclusive", low, high, note)
    if outcome == "fail" and not evidence.beyond_doubt(difference, spread, margin):
        return rule("inconclusive", low, high, LIKELY)
    return rule(outcome, low, high)
