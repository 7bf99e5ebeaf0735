"""The gate's verdict on a candidate: scores of two models matched by the images' bytes, without rows a champion has
seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from capnet.contracts import known_labels, unit_codes
from capnet.errors import some
from capnet.evaluation.bootstrap import MIN_POSITIVES, positive_units
from capnet.evaluation.metrics import measurable
from capnet.promotion.compared_rows import ComparedRows
from capnet.promotion.covered import covered, fewer_critical, labels_of, relabelled
from capnet.promotion.decisions import other_objectives, worse_decisions
from capnet.promotion.falls import largest_falls
from capnet.promotion.groups import common_groups, fewer_units, regrouped, split_up
from capnet.promotion.non_inferiority import coverage, minimum, non_inferiority
from capnet.promotion.policy import Policy
from capnet.promotion.scores import GateScores
from capnet.promotion.shared_classes import Rescore, class_changes, rescored_classes, restricted_to
from capnet.promotion.tails import moved_classes
from capnet.promotion.verdict import COVERAGE, CRITICAL, MINIMUM, NO_CLASSES, OTHER_CLASSES, Rule, Verdict

NO_CHAMPION = "there is no champion to compare with"


def gate_verdict(
    candidate: GateScores,
    champion: GateScores | None,
    policy: Policy,
    rescore: Rescore | None = None,
    earlier: Sequence[frozenset[str]] = (),
) -> Verdict:
    """The verdict on a candidate's test rows.

    Rows that either of the two was trained or chosen on (same bytes or same group, of whichever table) are left out,
    and images of one group are drawn together. Where rows are scored again or have other labels now, the champion's
    own must pass alone, too: what is added or changed must not hide a fall. Nor must what was added before: no fall may
    show on what ``earlier`` champions were tested on. Models of other classes are compared by the classes that both
    know; the order of classes does not count. A person decides where the candidate takes groups of the champion apart
    or moves classes into the tail or out of it, because that is what the version after it is measured with.

    Args:
        candidate: what may become champion.
        champion: without one only the minimum is asked for.
        policy: margins, coverage and draws.
        rescore: gives the champion's scores of rows it has none for (columns sha256); without it those are left out
            and a person is asked.
        earlier: small parts of the champion's test images, each what an earlier champion was tested on (sha256).
    """
    if champion is None:
        return _first_champion(candidate, policy)
    if champion.names != candidate.names and {*champion.names} == {*candidate.names}:
        rescore = rescored_classes(rescore, champion, candidate.names)
        champion = restricted_to(champion, candidate.names)
    regrouped_candidate, regrouped_champion = _grouped(candidate, champion)
    tested, notes = _tested(regrouped_candidate)
    alone = _alone(tested, notes, policy)
    compare = _compare if regrouped_champion.names == tested.names else _compare_shared
    verdict = compare(alone, tested, regrouped_champion, champion, policy, rescore, earlier)
    doubts = split_up([candidate.test, candidate.seen], [champion.test, champion.seen], policy)
    doubts += moved_classes(candidate, champion, policy)
    return replace(verdict, notes=(*verdict.notes, *doubts), doubtful=verdict.doubtful or bool(doubts))


def _first_champion(candidate: GateScores, policy: Policy) -> Verdict:
    """The verdict on a candidate that there is no champion to compare with."""
    tested, notes = _tested(candidate)
    alone = _alone(tested, notes, policy)
    if not alone.rows:
        return replace(alone, notes=(*notes, "no test picture is left"))
    rows = _rows(tested)
    ranked = measurable(rows.labels, rows.known)
    unmeasured = [rows.names[int(c)] for c in np.flatnonzero(rows.critical & ~ranked)]
    if unmeasured:
        notes.append(f"critical classes without a positive or without a negative test picture: {some(unmeasured)}")
    positives = positive_units(rows.labels & rows.known, rows.units)
    few = np.flatnonzero(rows.critical & ranked & (positives < MIN_POSITIVES))
    if len(few):
        what = "groups" if len(np.unique(rows.units)) < len(rows.units) else "pictures"
        why = f"with fewer than {MIN_POSITIVES} positive test {what}, too few to decide about later versions"
        notes.append(f"critical classes {why}: {some([f'{rows.names[c]} ({positives[c]})' for c in few.tolist()])}")
    return replace(alone, notes=(*notes, NO_CHAMPION))


def _alone(tested: GateScores, notes: Sequence[str], policy: Policy) -> Verdict:
    """The verdict on what is asked of a candidate without any champion, by its ``tested`` rows."""
    count = len(tested.test)
    rules = minimum(_rows(tested), _scores(tested.test), policy) if count else []
    return Verdict(tuple(rules), tuple(notes), doubtful=not count, rows=count)


def _compare_shared(
    alone: Verdict,
    candidate: GateScores,
    regrouped_champion: GateScores,
    champion: GateScores,
    policy: Policy,
    rescore: Rescore | None,
    earlier: Sequence[frozenset[str]],
) -> Verdict:
    """The verdict where the champion knows other classes: by those that both know, and a person decides in any case.

    Args:
        alone: the candidate without a champion, by all its classes.
        candidate, regrouped_champion, champion, policy, rescore, earlier: as in ``_compare``.
    """
    changes = class_changes(regrouped_champion.names, candidate.names)
    lost = sorted(regrouped_champion.critical.difference(candidate.names))
    unknown = (f"critical classes of the champion that this version does not know: {some(lost)}",) if lost else ()
    known = set(regrouped_champion.names)
    names = [name for name in candidate.names if name in known]
    if not names:
        uncovered = covered({}, labels_of(_tested(champion)[0].test), champion.classes["classes"], policy)
        note = f"{NO_CLASSES}, so nothing can be compared ({changes})"
        asks = unknown if uncovered else (note, *unknown)
        rules = (*uncovered, *alone.rules)
        return replace(alone, rules=rules, notes=(note, *unknown, *alone.notes), doubtful=True, asks=asks)
    again = rescored_classes(rescore, regrouped_champion, names)
    ours, rival, as_registered = (restricted_to(model, names) for model in (candidate, regrouped_champion, champion))
    verdict = _compare(alone, ours, rival, as_registered, policy, again, earlier)
    reasons = (f"{OTHER_CLASSES} ({changes}): compared by the {len(names)} that both know", *unknown)
    of_all = (COVERAGE, CRITICAL, MINIMUM)
    rules = tuple(
        rule if rule.name.startswith(of_all) else replace(rule, name=f"shared classes: {rule.name}")
        for rule in verdict.rules
    )
    notes, asks = (*reasons, *verdict.notes), (*reasons, *verdict.asks)
    return replace(verdict, rules=rules, notes=notes, doubtful=True, asks=asks)


def _compare(
    alone: Verdict,
    candidate: GateScores,
    regrouped_champion: GateScores,
    champion: GateScores,
    policy: Policy,
    rescore: Rescore | None,
    earlier: Sequence[frozenset[str]],
) -> Verdict:
    """The verdict on a candidate ``alone`` and on the test rows that the champion has not seen.

    Args:
        alone: without a champion.
        candidate, regrouped_champion: with the groups of both models' tables taken together.
        champion: with the groups of its own tables only.
        policy, rescore, earlier: as in ``gate_verdict``.
    """
    ours, left_out, doubts = _left_to_compare(candidate, regrouped_champion, rescore)
    now, before = labels_of(ours.test), labels_of(_tested(champion)[0].test)
    notes = [*relabelled(now, before), *alone.notes, *left_out]
    uncovered = covered(now, before, champion.classes["classes"], policy)
    missing = fewer_critical(now, before, champion.classes["classes"], policy)
    rules = [*uncovered, *missing, *fewer_units(ours.test, champion.test, policy), *alone.rules]
    if ours.test.empty:
        nothing = "not comparable: no test picture is left"
        return Verdict(
            rules=tuple(rules),
            notes=(*notes, *doubts, nothing),
            doubtful=True,
            asks=() if uncovered else (nothing,),
        )
    own, theirs = _scores(ours.test), _champion_scores(ours.test, regrouped_champion, rescore)
    thresholds = candidate.thresholds, regrouped_champion.thresholds
    again = np.array([before.get(key) == labels for key, labels in now.items()])  # labels are chosen, too
    is_other = bool(again.any() and not again.all())
    times = 1 + is_other + len(earlier)

    def compared(rows: ComparedRows, scores: np.ndarray, rival: np.ndarray) -> list[Rule]:
        rankings = non_inferiority(rows, scores, rival, policy, times)
        return rankings + worse_decisions(rows, scores, rival, thresholds, policy, times)

    def compared_on(chosen: np.ndarray, what: str) -> list[Rule]:
        rows = _rows_for_both(replace(ours, test=ours.test[chosen]), regrouped_champion)
        part = compared(rows, own[chosen], theirs[chosen])
        return [replace(rule, name=f"{rule.name} on {what}") for rule in part]

    everything = _rows_for_both(ours, regrouped_champion)
    rules += compared(everything, own, theirs)
    fell = largest_falls(everything, own, theirs)
    if is_other:
        rules += compared_on(again, "the champion's test pictures")
    for part in (tests & before.keys() for tests in earlier):
        chosen = again & ours.test["sha256"].isin(part).to_numpy(dtype=bool)
        what = f"{len(part)} test pictures of an earlier champion"
        kept = coverage(f"{COVERAGE} of {what}", int(chosen.sum()), len(part), what, policy)
        rules += [rule for rule in kept if rule.outcome != "pass"]
        if chosen.any():  # too few to show that it is as good, which the champion's own are for
            rules += [rule for rule in compared_on(chosen, what) if rule.is_below and rule.shows_fall]
    dropped = sorted(regrouped_champion.critical - candidate.critical)
    if dropped:
        doubts.append(f"classes that the champion marks as critical are not marked any more: {some(dropped)}")
    if regrouped_champion.thresholds is None and candidate.thresholds is not None:
        notes.append("the champion has no thresholds among its scores for the gate, so no labels are compared")
    asks = other_objectives(thresholds)
    return Verdict(
        rules=tuple(rules),
        notes=(*notes, *doubts),
        doubtful=bool(doubts or asks),
        rows=len(theirs),
        asks=asks,
        fell=fell,
    )


def _left_to_compare(
    candidate: GateScores, champion: GateScores, rescore: Rescore | None
) -> tuple[GateScores, list[str], list[str]]:
    """The candidate with the test rows that the champion has not seen and has, or can be given, scores for; notes and
    doubts about those that are left out.
    """
    notes, doubts = list[str](), list[str]()
    fresh = ~_seen(candidate.test, champion)
    if not fresh.all():
        why = "the champion was trained or chosen on them or their group"
        notes.append(f"{int((~fresh).sum())} of {len(fresh)} test pictures are left out: {why}")
    known = candidate.test["sha256"].isin(champion.test["sha256"]).to_numpy()
    added = int((fresh & ~known).sum())
    if added and rescore is None:
        doubts.append(
            f"the champion has no scores for {added} of {int(fresh.sum())} test pictures, which are left out:"
            " `capnet promote --data FOLDER` lets it score them"
        )
        fresh &= known
    return replace(candidate, test=candidate.test[fresh]), notes, doubts


def _scores(rows: pd.DataFrame) -> np.ndarray:
    """float32 [image, class]."""
    return np.array(rows["scores"].tolist(), dtype=np.float32)


def _grouped(candidate: GateScores, champion: GateScores) -> tuple[GateScores, GateScores]:
    """Both models with the groups of all their tables taken together."""
    groups = common_groups([candidate.test, candidate.seen, champion.test, champion.seen])

    def grouped(model: GateScores) -> GateScores:
        return replace(model, test=regrouped(model.test, groups), seen=regrouped(model.seen, groups))

    return grouped(candidate), grouped(champion)


def _tested(candidate: GateScores) -> tuple[GateScores, list[str]]:
    """Its test rows, each image once and none that it was trained or chosen on; notes on what is left out."""
    once = candidate.test.drop_duplicates("sha256")
    kept = once[~_seen(once, candidate)].reset_index(drop=True)
    counts = {
        "they are there more than once": len(candidate.test) - len(once),
        "the candidate was trained or chosen on them or their group": len(once) - len(kept),
    }
    notes = [
        f"{count} of {len(candidate.test)} test pictures are left out: {why}" for why, count in counts.items() if count
    ]
    return replace(candidate, test=kept), notes


def _seen(rows: pd.DataFrame, model: GateScores) -> np.ndarray:
    """bool [row]: was the model trained or chosen on these bytes or their group?"""
    groups = set(model.seen["group"]) - {""}
    return (rows["sha256"].isin(model.seen["sha256"]) | rows["group"].isin(groups)).to_numpy(dtype=bool)


def _rows_for_both(candidate: GateScores, champion: GateScores) -> ComparedRows:
    """Rows of the candidate, with the champion's tail where it is another one, and the critical classes of both."""
    rows = _rows(candidate)
    rows = replace(rows, critical=rows.critical | np.isin(candidate.names, sorted(champion.critical)))
    if champion.tail not in ([], candidate.tail):
        rows = replace(rows, former_tail=np.isin(candidate.names, champion.tail))
    return rows


def _champion_scores(rows: pd.DataFrame, champion: GateScores, rescore: Rescore | None) -> np.ndarray:
    """float32 [image, class] in the order of ``rows``; asks ``rescore`` for those that have none."""
    known = dict(zip(champion.test["sha256"], champion.test["scores"], strict=True))
    missing = rows[~rows["sha256"].isin(known.keys())]
    if len(missing) and rescore is not None:
        known |= dict(zip(missing["sha256"], rescore(missing), strict=True))
    return np.array([known[key] for key in rows["sha256"]], dtype=np.float32)


def _rows(model: GateScores) -> ComparedRows:
    items = model.classes["classes"]
    labels, known = known_labels(model.test, len(items))
    buckets, critical = [item["bucket"] for item in items], np.array([bool(item["critical"]) for item in items])
    return ComparedRows(labels, known, unit_codes(model.test["group"].tolist()), model.names, buckets, critical)
