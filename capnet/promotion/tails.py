"""Whether a candidate calls the classes rare that are: the version after it is asked about the candidate's tail."""

from __future__ import annotations

from capnet.errors import counted, some
from capnet.promotion.policy import Policy
from capnet.promotion.scores import GateScores


def moved_classes(candidate: GateScores, champion: GateScores, policy: Policy) -> list[str]:
    """Are there classes in the tail, or out of it, that the champion's limits would not put there? More or fewer
    training images alone move none: a class that leaves the tail has more than the champion's tail had, and one that
    joins it fewer than the champion's other classes. What remains is another ``split.buckets``.

    Args:
        candidate, champion: their classes with training images; those registered before these were kept say nothing.
        policy: its coverage is the least share of the classes in either tail that must not be moved.

    Returns:
        A doubt in words where fewer are left, none otherwise.
    """
    before = {item["name"]: item for item in champion.classes["classes"]}
    common = [item for item in candidate.classes["classes"] if item["name"] in before]
    if not common or any("train_count" not in item for item in (*before.values(), *common)):
        return []
    most = max((item["train_count"] for item in before.values() if item["bucket"] == "tail"), default=-1)
    least = min((item["train_count"] for item in before.values() if item["bucket"] != "tail"), default=float("inf"))
    moved, tails = [], 0
    for item in common:
        is_tail, was_tail = item["bucket"] == "tail", before[item["name"]]["bucket"] == "tail"
        count, tails = item["train_count"], tails + (is_tail or was_tail)
        if (was_tail and not is_tail and count <= most) or (is_tail and not was_tail and count >= least):
            moved.append(item["name"])
    if not moved or 1 - len(moved) / tails >= policy.coverage:
        return []
    return [
        f"split.buckets moves {counted(len(moved), 'class', 'classes')} into the tail or out of it: {some(moved)}. Once"
        " this version is the champion, later ones are asked about its tail"
    ]
