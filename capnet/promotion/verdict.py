"""What the gate says: rules with three outcomes, and the verdict that they make together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from capnet.evaluation.report.words import exact_percent, percent, percent_near

Outcome = Literal["pass", "inconclusive", "fail"]
Colour = Literal["green", "inconclusive", "red"]
COVERAGE, CRITICAL = "coverage", "critical class"  # rules' names start with it
FORMER_TAIL = "tail of the champion"
MINIMUM = "minimum mAP"
NO_INTERVAL = (float("nan"), float("nan"))
OTHER_CLASSES = "the champion knows other classes"
NO_CLASSES = "no class in common with the champion"
OTHER_LABELS = "all test pictures of the champion are tested on again, but the labels of some were changed"
CAUSES = (NO_CLASSES, OTHER_LABELS)  # why too little is compared: notes that begin so
LIKELY = "below what is allowed, but not beyond doubt"
FEWER_KEPT = "below what is allowed; thresholds vary with the pictures that they are chosen on, so a person decides"


@dataclass(frozen=True)
class Rule:
    """One test. ``value`` must not be below ``against`` by more than ``margin``; ``low`` and ``high`` bound ``value -
    against``; ``shows_fall``: it is below by more, whatever chance picks for all rules together.
    """

    name: str
    outcome: Outcome
    value: float
    against: float
    difference: float
    low: float
    high: float
    margin: float
    note: str = ""
    shows_fall: bool = False

    @property
    def is_below(self) -> bool:
        """Whether a fall shows that is larger than what is allowed, beyond doubt or not."""
        return self.outcome == "fail" or self.note.startswith((LIKELY, FEWER_KEPT))

    def __str__(self) -> str:
        numbers = ""
        if self.name.startswith(COVERAGE):  # a share and its limit, no difference of two models
            share, limit = percent_near(self.value, self.against), exact_percent(self.against)
            numbers = f" {share} %, at least {limit} % are asked for"
        elif np.isfinite(self.value) or np.isfinite(self.against):
            difference, low, high = (
                percent_near(x, -self.margin, sign=True) for x in (self.difference, self.low, self.high)
            )
            numbers = f" {percent(self.value)} against {percent(self.against)}: {difference}"
            numbers += f" ({low} to {high})" if np.isfinite(self.low) else ""
            numbers += f", may be {exact_percent(self.margin)} lower" if self.margin else ""
        return f"{self.outcome}: {self.name}{numbers}" + (f"; {self.note}" if self.note else "")


@dataclass(frozen=True)
class Verdict:
    """All rules; ``notes`` say what could not be compared, which needs a person where it is ``doubtful``; ``asks``:
    why a person must give a reason, rules apart; ``fell``: the classes that fell most.
    """

    rules: tuple[Rule, ...] = ()
    notes: tuple[str, ...] = ()
    doubtful: bool = False
    rows: int = 0
    asks: tuple[str, ...] = ()
    fell: tuple[str, ...] = ()

    @property
    def colour(self) -> Colour:
        outcomes = {rule.outcome for rule in self.rules}
        if "fail" in outcomes:
            return "red"
        return "inconclusive" if self.doubtful or "inconclusive" in outcomes else "green"

    @property
    def uncovered(self) -> list[Rule]:
        """The rules that too few of the champion's test images were compared for."""
        return [rule for rule in self.rules if rule.name.startswith(COVERAGE) and rule.outcome != "pass"]

    @property
    def causes(self) -> list[str]:
        """The notes that say why too few of the champion's test images are compared, if that is known."""
        return [note for note in self.notes if note.startswith(CAUSES)] if self.uncovered else []

    @property
    def likely(self) -> list[Rule]:
        """The rules that this version probably breaks, but not beyond doubt."""
        return [rule for rule in self.rules if rule.is_below and rule.outcome != "fail"]

    @property
    def needs_reason(self) -> bool:
        return bool(self.uncovered or self.asks or self.likely)

    @property
    def advice(self) -> str:
        """What to do where a reason is needed."""
        options = "--reason ..." + (" --yes" if self.colour == "inconclusive" else "")
        todo = f"say in a sentence why this version must serve: `{options}`, it stays in the history"
        if self.uncovered and not self.causes:
            return f"test on the champion's pictures too and register again, or {todo}"
        return todo

    @property
    def fell_most(self) -> list[str]:
        """One line with the classes that fell most; none where all rules passed."""
        return [f"fell most: {'; '.join(self.fell)}"] if self.fell and self.colour != "green" else []

    @property
    def broken(self) -> list[Rule]:
        return [rule for rule in self.rules if rule.outcome == "fail"]
