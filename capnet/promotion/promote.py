"""Moving the alias `champion`: the gate's verdict against today's champion, promotion, rollback, audit."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from capnet.errors import GateError, Problem, counted
from capnet.promotion import history
from capnet.promotion.champion import ALIAS, OVERRIDE, VERDICT, VERDICT_OF, identity, refusal, says_something
from capnet.promotion.history import Event
from capnet.promotion.measure import MakeRescore, has_scores, measure
from capnet.promotion.page import refresh, show_verdict, verdict_tags
from capnet.promotion.policy import Policy
from capnet.promotion.policy_record import POLICY_RULE, policy_in_tags, policy_in_words
from capnet.promotion.verdict import Verdict
from capnet.promotion.versions import champion_of, current_number, require_files, version_or_none, version_to_beat
from capnet.redaction import redact
from capnet.tracking.store import insist

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

log = logging.getLogger(__name__)

Confirm = Callable[[Verdict], bool]


@dataclass(frozen=True)
class Outcome:
    """What a promotion or rollback did: versions as text, "" for none; ``now``: the champion afterwards, another where
    someone was faster.
    """

    name: str
    before: str
    after: str
    now: str
    verdict: Verdict | None
    event: Event | None


def _check_force(force: bool, reason: str) -> None:
    if force and not says_something(reason):
        todo = "say in a sentence why this model must serve; it stays in the history"
        raise GateError("--force needs --reason", "command line", todo)


# ---------------------------------------------------------------- promote


def promote(
    client: MlflowClient,
    version: ModelVersion,
    policy: Policy,
    confirm: Confirm,
    force: bool = False,
    reason: str = "",
    make_rescore: MakeRescore | None = None,
) -> Outcome:
    """Make ``version`` the champion of its registered model.

    A red verdict is refused without ``force`` and ``reason``; an inconclusive one asks ``confirm``. A ``reason`` is
    needed where the version is probably worse than what is allowed, where too few of the champion's test images are
    compared, where classes are others or thresholds were chosen for another objective, where the champion's scores are
    missing, where a copy finds no champion, or where the last champion was deleted. Moves of the alias made
    elsewhere are written into the history first. Raises GateError where the gate refuses, ContractError where the
    version has no files.
    """
    _check_force(force, reason)
    name, number = version.name, str(version.version)
    record_outside_move(client, name)
    before = current_number(client, name)
    if before == number and not refusal(name, number, version.tags, history.events(client, name)):
        refresh(client, name, number)  # a page written while another moved the alias here says nothing of that move
        return Outcome(name, before, number, number, None, None)
    require_files(client, version)
    rival = version_to_beat(client, name, number)
    verdict = measure(client, version, rival, policy, make_rescore)
    if OVERRIDE in version.tags:
        client.delete_model_version_tag(name, number, OVERRIDE)  # its reason was for another verdict
    show_verdict(client, version, verdict_tags(version, rival, verdict, policy))
    if not force:
        _require_consent(verdict, identity(name, number), reason, confirm)
        require_files(client, version)  # a person may have answered the next day
    since = history.now()
    if current_number(client, name) != before:  # someone was faster: what was measured is no longer today's champion
        return promote(client, client.get_model_version(name, number), policy, confirm, force, reason, make_rescore)
    kind = "forced" if verdict.colour == "red" else "promoted"
    rules, words = "; ".join(map(str, verdict.broken)), policy_in_words(policy)
    rows = str(verdict.rows)
    event = history.begin(client, name, kind, before, number, verdict.colour, reason, rules, policy=words, rows=rows)
    if verdict.colour == "red" or verdict.needs_reason:
        client.set_model_version_tag(name, number, OVERRIDE, redact(reason))
    return _move(client, event, name, verdict, since)


def _require_consent(verdict: Verdict, where: str, reason: str, confirm: Confirm) -> None:
    """Raise GateError where the gate refuses, where a ``reason`` is needed and missing, or where it cannot decide and
    nobody confirms.
    """
    if verdict.colour == "red":
        problems = _broken_rules(verdict, where)
        todo = "`--force --reason ...` promotes it all the same, on the record"
        images = counted(verdict.rows, "test picture")
        what = f"the promotion gate refuses this version, on {images}; figures are in percent, intervals 95 %"
        raise GateError(problems=[*problems, Problem(what, where, todo)])
    open_rules = sorted((rule for rule in verdict.rules if rule.outcome != "pass"), key=lambda rule: not rule.is_below)
    # what explains the others first, then what weighs most
    reasons = (*verdict.causes, *verdict.asks, *map(str, open_rules), *verdict.notes, *verdict.fell_most)
    undecided = [Problem(text) for text in dict.fromkeys(reasons)]
    if verdict.needs_reason and not says_something(reason):
        few = "too few of the champion's test pictures are compared" if verdict.uncovered else ""
        worse = "this version is probably worse than what is allowed" if verdict.likely else ""
        why = " and ".join(filter(None, (worse, few))) or "a person must answer for this version"
        raise GateError(problems=[*undecided, Problem(f"{why}, which needs --reason", where, verdict.advice)])
    if verdict.colour == "inconclusive" and not confirm(verdict):
        todo = "look at both reports, then confirm with --yes, or measure on more test pictures"
        raise GateError(problems=[*undecided, Problem("the gate cannot decide and nobody confirmed", where, todo)])


def _move(client: MlflowClient, event: Event, name: str, verdict: Verdict | None, since: str) -> Outcome:
    """Set the alias and look again: MLflow has no compare-and-swap, so of two at once the later one stays.

    ``since``: a time before the present champion was looked up; what others finish from then on, we replace.
    The time of the move is taken between: an alias that is still ours after it was moved by others later, one that is
    not was moved before. The event is marked as finished last, after the pages: if this process dies
    before that, the next command completes the move.
    """
    insist(client.set_registered_model_alias, name, ALIAS, event.after)
    done = history.now()
    refresh(client, name, event.before, event.after, moved=replace(event, done=done))
    known, replaced = history.events(client, name), event.before
    others = [item for item in known if item.counts and since < item.done < done and item.after != event.after]
    if others:  # finished since we looked: that is the champion that we replaced
        event = replace(event, before=others[-1].after)
    now = current_number(client, name)
    overtaken = now if now != event.after else ""
    finished = history.finish(client, name, event, done if overtaken else history.time_of_move(known, done), overtaken)
    if overtaken or event.before != replaced:
        refresh(client, name, event.before, event.after)
    return Outcome(name, event.before, event.after, now, verdict, finished)


# ---------------------------------------------------------------- back, and what others did


def rollback(client: MlflowClient, name: str, force: bool = False, reason: str = "") -> Outcome:
    """The champion before the present one comes back, at once and without a new test. A rollback that died after it had
    moved the alias is completed instead: whoever calls again wants to go back once.

    Raises GateError where there was none, or where readers would refuse it and no ``force`` with a ``reason`` is given;
    ContractError where it has no files.
    """
    _check_force(force, reason)
    moved = history.unfinished(history.events(client, name), current_number(client, name))
    record_outside_move(client, name)
    if moved is not None and moved.kind == "rolled back":
        return Outcome(name, moved.before, moved.after, current_number(client, name), None, moved)
    since = history.now()
    current, known = current_number(client, name), history.events(client, name)
    former = (version_or_none(client, name, number) for number in history.rollback_line(known, current))
    version = next(filter(None, former), None)  # versions that were deleted are passed over
    if version is None:
        raise GateError(
            f"no champion before {identity(name, current) if current else 'now'} is known",
            f"models:/{name}",
            "promote a version instead",
        )
    require_files(client, version)
    back = str(version.version)
    if not has_scores(client, version):
        log.warning(
            "the scores of %s for the gate are gone: nothing can be compared with it, and promoting the next version"
            " needs --reason",
            identity(name, back),
        )
    why = refusal(name, back, version.tags, known)
    if why and not force:
        raise GateError(
            f"{identity(name, back)} has {why}",
            f"models:/{name}/{back}",
            "`--rollback --force --reason ...` goes back all the same, on the record",
        )
    verdict, words = version.tags.get(VERDICT, ""), _policy_of(version)
    event = history.begin(client, name, "rolled back", current, back, verdict, reason, policy=words)
    if why:
        client.set_model_version_tag(name, back, OVERRIDE, redact(reason))
        if version.tags.get(VERDICT_OF, identity(name, back)) != identity(name, back):
            # of a copy: readers would take all of its tags for those of another version
            client.delete_model_version_tag(name, back, VERDICT_OF)
    return _move(client, event, name, None, since)


def record_outside_move(client: MlflowClient, name: str) -> Event | None:
    """Write a move of the alias that was made elsewhere (in the UI) into the history, and finish one whose writer died.

    Returns:
        The event of a move made elsewhere; None where there was none.
    """
    champion, known = champion_of(client, name), history.events(client, name)
    current, last = str(champion.version) if champion else "", history.expected_champion(known)
    if current == last:
        return None
    begun = history.unfinished(known, current)
    if begun is not None:
        done = history.time_of_move(known)
        refresh(client, name, last, current, moved=replace(begun, done=done))
        history.finish(client, name, begun, done)
        return None
    tags = champion.tags if champion else {}
    rules = refusal(name, current, tags, known) if champion else ""
    red = tags.get(VERDICT) == "red" and tags.get(VERDICT_OF) == identity(name, current)
    # one that readers refuse is none, unless it is red
    verdict = tags.get(VERDICT, "") if red or not rules else ""
    why, key = tags.get(OVERRIDE, "") or "the alias was moved outside capnet promote", history.found_key(known, current)
    event = history.begin(client, name, "found", last, current, verdict, why, rules, key, _policy_of(champion))
    done = history.time_of_move(known)
    refresh(client, name, last, current, moved=replace(event, done=done))
    return history.finish(client, name, event, done)


def _policy_of(version: ModelVersion | None) -> str:
    policy = policy_in_tags(version.tags) if version else None
    return policy_in_words(policy) if policy else ""


@dataclass(frozen=True)
class Audit:
    """All events; ``new`` was found now; ``refused``: why readers refuse the present champion, "" where they accept
    it.
    """

    events: list[Event]
    new: Event | None
    champion: str
    refused: str


def audit(client: MlflowClient, name: str) -> Audit:
    """Record moves made elsewhere and say whether the present champion may be read."""
    new = record_outside_move(client, name)
    champion = champion_of(client, name)
    known = history.events(client, name)
    refused = refusal(name, champion.version, champion.tags, known) if champion else ""
    if champion:
        refresh(client, name, str(champion.version))
    return Audit(known, new, str(champion.version) if champion else "", refused)


def _broken_rules(verdict: Verdict, where: str) -> list[Problem]:
    """Each rule that failed with what to do about it; the classes that fell most are listed once."""
    problems, todo = [], "train again"
    if verdict.fell:
        todo = f"look at what fell most ({'; '.join(verdict.fell)}); train again"
    for rule in verdict.broken:
        if rule.name == POLICY_RULE:
            problems.append(Problem(str(rule), where, "promote by the policy that the champion passed"))
        else:
            problems.append(Problem(str(rule), where, todo))
            todo = "train again"
    return problems
