"""By which policy a verdict was made, and whether another one asks for less: a policy is chosen by whoever runs the
command.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from pydantic import ValidationError

from capnet.promotion.policy import Policy
from capnet.promotion.verdict import NO_INTERVAL, Rule

VERDICT_POLICY = "verdict_policy"  # tag: the policy of the verdict, as JSON with its hash
POLICY_RULE = "policy"


def policy_hash(policy: Policy) -> str:
    """sha256 of everything that a policy says, so of no comment and no order."""
    return hashlib.sha256(json.dumps(policy.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()


def policy_in_words(policy: Policy) -> str:
    """The hash, as one can tell it, and what is asked for; shares in %."""
    fall = policy.may_fall
    return (
        f"policy {policy_hash(policy)[:12]}: mAP at least {100 * policy.minimum.mAP:g}, may fall by {100 * fall.mAP:g},"
        f" tail by {100 * fall.tail:g}, critical by {100 * fall.critical:g}, coverage {100 * policy.coverage:g},"
        f" {policy.draws} draws, seed {policy.seed}"
    )


def policy_tag(policy: Policy) -> str:
    """As it stands in a tag."""
    return json.dumps({"sha256": policy_hash(policy), "policy": policy.model_dump(mode="json")}, sort_keys=True)


def policy_in_tags(tags: Mapping[str, str]) -> Policy | None:
    """The policy in a version's tags; None where there is none, or none that can be read."""
    try:
        return Policy.model_validate(json.loads(tags.get(VERDICT_POLICY, ""))["policy"])
    except (ValueError, TypeError, KeyError, RecursionError, ValidationError):
        return None


def loosened(policy: Policy, champion: Mapping[str, str], passed: str = "") -> list[Rule]:
    """One rule that fails where ``policy`` asks for less than the one that the champion passed; else none.

    Fewer draws are less. So is another seed: whoever may try seeds until one passes chooses the outcome of what is
    nearly undecided.

    Args:
        policy: what the candidate is asked for.
        champion: tags of the champion. Where neither they nor the history name a policy, it was the usual one.
        passed: the policy of the champion as the history has it; "" where it has none. Its tags have that of the last
            request, which may have been refused.
    """
    known = policy_in_tags(champion)
    if passed:
        of_tags = () if known is None else (known,)
        known = next((item for item in (*of_tags, policy, Policy()) if policy_in_words(item) == passed), None)
        if known is None:
            return [_failed(f"it is not the one that the champion passed: {passed}")]
    before = known or Policy()
    pairs = {
        "minimum.mAP": (before.minimum.mAP, policy.minimum.mAP),
        "coverage": (before.coverage, policy.coverage),
        "may_fall.mAP": (-before.may_fall.mAP, -policy.may_fall.mAP),
        "may_fall.tail": (-before.may_fall.tail, -policy.may_fall.tail),
        "may_fall.critical": (-before.may_fall.critical, -policy.may_fall.critical),
    }
    if known is not None:
        pairs["draws"] = (before.draws, policy.draws)
    less = [f"{name} {abs(now):.15g} instead of {abs(then):.15g}" for name, (then, now) in pairs.items() if now < then]
    if known is not None and policy.seed != before.seed:
        less.append(f"seed {policy.seed} instead of {before.seed}")
    return [_failed(f"it asks for less than the one that the champion passed: {', '.join(less)}")] if less else []


def _failed(note: str) -> Rule:
    nothing = float("nan")
    return Rule(POLICY_RULE, "fail", nothing, nothing, nothing, *NO_INTERVAL, 0.0, note)
