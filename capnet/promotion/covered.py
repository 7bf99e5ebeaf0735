"""How much of what a champion was tested on is asked again: a candidate chooses its own test images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from capnet.promotion.non_inferiority import coverage
from capnet.promotion.policy import Policy
from capnet.promotion.verdict import COVERAGE, OTHER_LABELS, Rule

Labels = tuple[frozenset[int], frozenset[int]]  # the classes on an image, and those that nobody knows about
BySha = Mapping[str, Labels]
NONE: Labels = (frozenset(), frozenset())


def labels_of(rows: pd.DataFrame) -> BySha:
    """Labels of rows with columns sha256, labels and unknown."""
    unknown = [frozenset(map(int, row)) for row in rows["unknown"]]
    known = [frozenset(map(int, row)) - left_out for row, left_out in zip(rows["labels"], unknown, strict=True)]
    return dict(zip(rows["sha256"], zip(known, unknown, strict=True), strict=True))


def covered(now: BySha, before: BySha, classes: Sequence[Mapping[str, Any]], policy: Policy) -> list[Rule]:
    """Two rules, on the champion's test images and on the positives of its tail.

    An image counts where its labels are those that the champion was tested with, a positive where it still is one.

    Args:
        now: labels of the candidate's images that are compared.
        before: labels of the images that the champion was tested on.
        classes: the champion's, in the order of the labels.
        policy: its coverage is the least share.
    """
    images = sum(now.get(key) == labels for key, labels in before.items())
    tail = {number for number, item in enumerate(classes) if item["bucket"] == "tail"}
    kept, positives = _positives(now, before, tail)
    what = "tail positives that the champion was tested on"
    return [
        *coverage(COVERAGE, images, len(before), "test pictures of the champion", policy),
        *coverage(f"{COVERAGE} of the tail", kept, positives, what, policy),
    ]


def fewer_critical(now: BySha, before: BySha, classes: Sequence[Mapping[str, Any]], policy: Policy) -> list[Rule]:
    """A rule for each critical class of the champion that has too few positives left; none for the others.

    Args:
        now, before, classes, policy: as in ``covered``.
    """
    rules = list[Rule]()
    for number, item in enumerate(classes):
        if item["critical"]:
            kept, positives = _positives(now, before, {number})
            what = "positives that the champion was tested on"
            rules += coverage(f"{COVERAGE} of critical class {item['name']}", kept, positives, what, policy)
    return [rule for rule in rules if rule.outcome != "pass"]


def relabelled(now: BySha, before: BySha) -> list[str]:
    """A note on images that do not count as compared because their labels were changed; [] without such images."""
    changed = sum(now.get(key, labels) != labels for key, labels in before.items())
    if not changed:
        return []
    if before.keys() <= now.keys():
        return [f"{OTHER_LABELS}: {changed} of {len(before)}"]
    return [f"{changed} of {len(before)} test pictures of the champion have other labels now"]


def _positives(now: BySha, before: BySha, classes: set[int]) -> tuple[int, int]:
    """How many positives of these classes still are, and how many there were."""
    kept = sum(len(labels[0] & classes & now.get(key, NONE)[0]) for key, labels in before.items())
    return kept, sum(len(labels[0] & classes) for labels in before.values())
