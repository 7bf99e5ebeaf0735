"""Pictures with the scores of a champion and of a candidate, tested on any of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from capnet.promotion.gate import gate_verdict
from capnet.promotion.policy import Policy
from capnet.promotion.scores import GateScores
from capnet.promotion.verdict import Verdict

Array = NDArray[np.floating]
POLICY = Policy(draws=200)
BUCKETS = ["head", "head", "head", "medium", "medium", "tail", "tail", "tail"]
PREVALENCE = np.array([0.4, 0.3, 0.25, 0.2, 0.15, 0.12, 0.1, 0.08])
HARD, EASY = 2.5, 6.0  # how far a champion's positives stand from the others: mAP 0.87 and 1.00
WORSE = {HARD: 2.3, EASY: 3.2}  # mAP lower by 0.04 and more: twice the margin
NOTHING = pd.DataFrame({"sha256": [], "group": []}, dtype=object)


class World:
    """Pictures, and the scores of a champion and of another model on them; both find the same pictures hard."""

    def __init__(self, seed: int, size: int, ours: float, theirs: float = HARD) -> None:
        rng = np.random.default_rng([seed, size])
        shape = (size, len(BUCKETS))
        self.labels = rng.random(shape) < PREVALENCE
        shared, mine, other = (rng.standard_normal(shape) for _ in range(3))
        self.ours, self.theirs = (
            (1 / (1 + np.exp(-(self.labels * skill + np.sqrt(0.8) * shared + np.sqrt(0.2) * own - 3)))).astype(
                np.float32
            )
            for skill, own in ((ours, mine), (theirs, other))
        )

    def scores(self, of: Array, rows: Sequence[int] | NDArray[np.int64] | None = None) -> GateScores:
        """What one model's run keeps, tested on these rows only."""
        chosen = np.arange(len(of)) if rows is None else np.asarray(rows, dtype=np.int64)
        labels = [np.flatnonzero(self.labels[n]) for n in chosen]
        columns = {"sha256": [f"{n:064}" for n in chosen], "labels": labels, "unknown": [[]] * len(chosen), "group": ""}
        items = [{"name": f"class {c}", "bucket": bucket, "critical": False} for c, bucket in enumerate(BUCKETS)]
        return GateScores({"classes": items}, pd.DataFrame(columns).assign(scores=[of[n] for n in chosen]), NOTHING)

    def verdict(
        self,
        tested: Sequence[int] | NDArray[np.int64],
        champion_tested: NDArray[np.int64] | None = None,
        rescored: bool = True,
    ) -> Verdict:
        """``tested``: the rows that the candidate was tested on; the champion scores what it was not tested on where
        ``rescored``.
        """

        def rescore(rows: pd.DataFrame) -> Array:
            return self.theirs[rows["sha256"].astype(int)]

        champion = self.scores(self.theirs, champion_tested)
        return gate_verdict(self.scores(self.ours, tested), champion, POLICY, rescore if rescored else None)

    def gain(self) -> Array:
        """[picture], how much each one speaks for the candidate: what its labels add to the sums of precision."""
        return self._precision(self.ours) - self._precision(self.theirs)

    def _precision(self, scores: Array) -> Array:
        result = np.zeros(self.labels.shape)
        for c, positive in enumerate(self.labels.T):
            order = np.argsort(-scores[:, c], kind="stable")
            result[order, c] = (
                positive[order] * np.cumsum(positive[order]) / np.arange(1, len(order) + 1) / max(1, positive.sum())
            )
        return result.sum(axis=1)


def outcomes(verdict: Verdict) -> dict[str, str]:
    return {rule.name: rule.outcome for rule in verdict.rules}
