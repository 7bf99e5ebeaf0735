"""A version's page at the store: the tags of its verdict, and the lines above its description that say it in words."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from capnet.errors import one_line
from capnet.promotion import history
from capnet.promotion.champion import (
    ASKS,
    OVERRIDE,
    VERDICT,
    VERDICT_AGAINST,
    VERDICT_OF,
    VERDICT_RULES,
    identity,
    refusal,
)
from capnet.promotion.policy import Policy
from capnet.promotion.policy_record import VERDICT_POLICY, policy_in_tags, policy_in_words, policy_tag
from capnet.promotion.verdict import Verdict
from capnet.promotion.versions import current_number, version_or_none
from capnet.tracking.store import insist

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

log = logging.getLogger(__name__)
LONGEST_TAG = 4500
LONGEST_PAGE = 5000  # letters of a description: MLflow's column in PostgreSQL and MySQL
LONGEST_NOTE = 600
LEFT_OUT = 60  # letters of the line that counts what does not fit
START, RULE = "Verdict: ", "\n\n---\n\n"  # the opening of a description starts and ends with these


def verdict_tags(
    version: ModelVersion, champion: ModelVersion | None, verdict: Verdict, policy: Policy
) -> dict[str, str]:
    """What readers of the champion ask for, as tags.

    A long list is cut, so rules that failed come first, then what needs a reason and why; behind all rules stand the
    classes that fell most.

    Args:
        version: that the verdict is on.
        champion: that it is against; None for none.
        verdict: on ``version``.
        policy: that the verdict is by.
    """
    first = [*verdict.broken, *verdict.likely, *verdict.uncovered]
    lines = [
        *map(str, verdict.broken),
        *verdict.causes,
        *(f"{ASKS}{why}" for why in (*verdict.likely, *verdict.asks)),
        *map(str, verdict.uncovered),
        *(str(rule) for rule in verdict.rules if rule not in first),
        *verdict.fell_most,
        *(note for note in verdict.notes if note not in (*verdict.causes, *verdict.asks)),
    ]
    return {
        VERDICT_POLICY: policy_tag(policy),
        VERDICT: verdict.colour,
        VERDICT_OF: identity(version.name, version.version),
        VERDICT_AGAINST: identity(version.name, champion.version if champion else ""),
        # a class name may contain what Unicode takes for the end of a line, and be so long that it fills the tag
        VERDICT_RULES: "\n".join(" ".join(line.splitlines())[:LONGEST_NOTE] for line in lines)[:LONGEST_TAG],
    }


def show_verdict(client: MlflowClient, version: ModelVersion, tags: Mapping[str, str]) -> None:
    """Write the tags of a verdict and bring the version's description up to date.

    Args:
        client: of the registry.
        version: that the verdict is on.
        tags: from ``verdict_tags``.
    """
    for key, value in tags.items():
        insist(client.set_model_version_tag, version.name, version.version, key, value)
    refresh(client, version.name, str(version.version))


def refresh(client: MlflowClient, name: str, *numbers: str, moved: history.Event | None = None) -> None:
    """Bring descriptions of versions up to date.

    Args:
        client, name: the registry, and the registered model.
        numbers: of the versions; "" and deleted ones are passed over.
        moved: a move that the history does not have as finished yet.
    """
    events, champion = history.events(client, name), current_number(client, name)
    events += [moved] if moved else []
    for number in dict.fromkeys(numbers):
        version = version_or_none(client, name, number) if number else None
        if version is None:
            continue
        before = version.description or ""
        rest = RULE + body(before)
        text = opening(version, events, number == champion, LONGEST_PAGE - len(rest)) + rest
        if len(text) > LONGEST_PAGE:
            log.warning("the description of %s is too long for its verdict; the tags have it", identity(name, number))
        elif text != before:
            client.update_model_version(name, number, text)


def opening(version: ModelVersion, events: Sequence[history.Event], is_champion: bool, room: int = LONGEST_PAGE) -> str:
    """The first lines of a version's description, in Markdown.

    Args:
        version: with its tags.
        events: history of the registered model.
        is_champion: whether the alias points to this version now.
        room: letters that it may have; rules that do not fit are counted.

    Returns:
        One plain line with the colour of the verdict, whom it is against, and when the version became or ceased to be
        champion; then a list of the rules with their numbers, and the reason of a person where there is one.
    """
    number, tags = str(version.version), version.tags
    own = tags.get(VERDICT, "") if tags.get(VERDICT_OF) == identity(version.name, number) else ""
    first = f"{START}{own}, against {tags.get(VERDICT_AGAINST) or 'nobody'}." if own else f"{START}none of its own."
    moves = [event for event in events if event.counts and number in (event.before, event.after)]
    day = moves[-1].done[:10] if moves else ""
    if moves and moves[-1].kind == "found":
        day += " or before"  # that is when the move was seen: the store does not say when an alias was moved
    if is_champion and moves:
        how = "moved outside capnet promote" if moves[-1].kind == "found" else f"{moves[-1].kind} by {moves[-1].by}"
        first += f" Champion since {day}, {how}."
    elif is_champion:
        first += " Champion."
    elif moves:
        first += f" Was champion until {day}."
    reason = refusal(version.name, number, tags, events) if is_champion else ""
    if reason:
        first += " Readers refuse it."
    rules = tags.get(VERDICT_RULES, "").splitlines() if own else []
    policy = policy_in_tags(tags) if own else None
    notes = [policy_in_words(policy)] if policy else []
    notes += [f"refused: {reason}"] if reason else []
    if tags.get(OVERRIDE):
        notes.append(f"reason of a person: {tags[OVERRIDE]}")
    # no line of a stranger's, such as the name of an account, ends this one
    first = one_line(first)
    shown, cut = [_item(line) for line in rules], [_item(line) for line in notes]
    cut = [line if len(line) <= LONGEST_NOTE else f"{line[:LONGEST_NOTE]}...`" for line in cut]
    while shown and sum(len(line) + 1 for line in (first, "", *shown, *cut)) > room - LEFT_OUT:
        shown.pop()
    left_out = len(rules) - len(shown)
    more = [f"- and {left_out} more, in the tag {VERDICT_RULES}"] if left_out else []
    lines = [*shown, *more, *cut]
    return "\n".join([first, "", *lines] if lines else [first])


def _item(line: str) -> str:
    """An item of a list in Markdown, as code."""
    return f"- `{one_line(line).replace('`', chr(39))}`"


def body(description: str) -> str:
    """A description without its opening."""
    top, rule, rest = description.partition(RULE)
    return rest if rule and top.startswith(START) else description
