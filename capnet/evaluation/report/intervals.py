"""How intervals were made, and what few groups make of them, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from capnet.errors import counted

FEW_GROUPS = 10  # below, draws are of few kinds, most of all for a bucket that fewer groups show


def is_grouped(metrics: Mapping[str, Any]) -> bool:
    """Whether test images are drawn in groups, by the content of evaluation.json."""
    return bool(metrics.get("bootstrap", {}).get("unit") == "group")


def is_of_one_group(metrics: Mapping[str, Any]) -> bool:
    """Whether all test images are of one group, likewise: then there are no intervals."""
    return int(metrics.get("bootstrap", {}).get("units", 2)) < 2


def intervals_in_words(metrics: Mapping[str, Any]) -> str:
    """How the intervals in the content of evaluation.json were made, or why there are none."""
    bootstrap = metrics.get("bootstrap", {})
    if not bootstrap:
        return "95 % bootstrap intervals"
    if is_of_one_group(metrics):
        return "no intervals, because all test pictures are of one group"
    units = counted(int(bootstrap["units"]), bootstrap["unit"])
    alone = ", where a picture without a group counts as one" if is_grouped(metrics) else ""
    return f"95 % intervals from {bootstrap['draws']:,} bootstrap draws of {units}{alone}"


def group_notes(metrics: Mapping[str, Any]) -> list[str]:
    """What a reader must know of intervals from few groups, in sentences."""
    if is_of_one_group(metrics):
        return [
            "All test pictures are of one group, so no interval can be given and no difference is shown to be more than"
            " chance. Give the test split images of several groups, such as sites or patients."
        ]
    units = int(metrics.get("bootstrap", {}).get("units", FEW_GROUPS))
    if not is_grouped(metrics) or units >= FEW_GROUPS:
        return []
    return [
        f"The test pictures are of only {units} groups. Intervals from so few can be too narrow: what they exclude may"
        " still be chance."
    ]
