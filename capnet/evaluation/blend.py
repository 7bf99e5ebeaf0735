"""Which blend of members is served: chosen on held-out images, so that nobody gets less than what a hurried user would
have had.

Every candidate is a weighted mean of logits. One is preferred, because held-out rows are few and a choice among many
blends would follow their noise: the mean of all trained members, the probe and zero-shot (as between zero-shot and
fine-tuned models in WiSE-FT, Wortsman et al., CVPR 2022), in which a member weighs as much as the probe, or less, the
further it is behind it on these rows. A hurried user would have the linear probe or zero-shot: if one of these ranks
the held-out rows better than that mean, by however little, or if a trained part alone does so by more than chance, the
best of a few steps from that mean towards that member is served. The last step is the member alone. So on these rows
the served score is never below the linear probe and zero-shot, and never shown to be below a trained part.

Out of fold, a class whose positives all lie in one fold has no say: the models that score them saw no positive of it,
while what is served has seen all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capnet.evaluation.bootstrap import draw_weights, interval
from capnet.evaluation.headline import BASELINES
from capnet.evaluation.metrics import Bools, Floats, mean_over, rank, weighted_average_precision

Weights = dict[str, float]
DRAWS = 300
PREFERRED = ("capnet", "class_head", "linear_probe", "zero_shot")
STEPS = (0.25, 0.5, 0.75, 1.0)  # towards a member that is better alone
LEEWAY = 0.1  # mAP: a member so far behind the probe weighs 1/e of what the probe does


@dataclass(frozen=True)
class Blend:
    """The chosen weights, where they were chosen, what they gained there over each member alone, and every candidate's
    mAP.
    """

    weights: Weights
    chosen_on: str
    candidates: dict[str, float]
    gains: dict[str, dict[str, float]]

    def document(self) -> dict[str, Any]:
        """As it stands in config.json; ``candidates`` are kept in a file of their own."""
        return {"weights": self.weights, "chosen_on": self.chosen_on, "gains": self.gains}


def preferred_weights(alone: Mapping[str, float]) -> Weights:
    """What is served unless held-out rows say otherwise: weights in proportion to min(1, exp((v - v_probe) / LEEWAY)).

    Args:
        alone: mAP v of each preferred member on held-out rows; NaN where no class could be ranked.

    Returns:
        Their weights; equal ones without the probe, or where no class could be ranked.
    """
    behind = {name: min(0.0, value - alone.get("linear_probe", value)) for name, value in alone.items()}
    shares = {name: float(np.exp(np.nan_to_num(gap) / LEEWAY)) for name, gap in behind.items()}
    total = float(np.sum([*shares.values()]))  # Python's sum rounds otherwise from 3.12 on
    return {name: share / total for name, share in shares.items()}


def towards(member: str, weights: Mapping[str, float]) -> list[Weights]:
    """Blends from ``weights`` towards ``member``; the last is that member alone."""
    names = dict.fromkeys([*weights, member])
    steps = [{name: (1 - step) * weights.get(name, 0.0) + step * (name == member) for name in names} for step in STEPS]
    return [{name: weight for name, weight in blend.items() if weight} for blend in steps]


def in_words(weights: Mapping[str, float]) -> str:
    """``0.35 capnet + 0.35 class_head + 0.30 zero_shot``."""
    return " + ".join(f"{weight:.2f} {name}" for name, weight in weights.items())


def mix(members: Mapping[str, Floats], weights: Weights) -> Floats:
    """The weighted mean of logits [image, class]."""
    return np.sum([weight * members[name] for name, weight in weights.items()], axis=0)


def choose_blend(
    members: Mapping[str, Floats],
    labels: Bools,
    known: Bools,
    units: NDArray[np.int64],
    chosen_on: str,
    preferred: tuple[str, ...] = PREFERRED,
    folds: NDArray[np.int64] | None = None,
    score: Callable[[Weights], Floats] | None = None,
) -> Blend:
    """The ``preferred_weights``; or, where the probe or zero-shot alone has a higher mAP on held-out images by any
    lead, or a trained part by more than chance, the best of these and the steps ``towards`` those members.

    Args:
        members: logits of each member, [image, class].
        labels: bool [image, class].
        known: bool [image, class].
        units: images that belong together, int [image]; the intervals draw them together. Where all belong together
            there are none, and no trained part is shown to lead by more than chance.
        chosen_on: what these images are, for config.json and the report.
        preferred: members of the preferred blend; those that do not exist are left out.
        folds: int [image]: images with scores of one model, trained on all others. They are ranked among themselves,
            because scores of two models may differ by an offset; average precision is the mean over folds, and classes
            count whose known positives lie in two folds or more. None: all are of one model.
        score: what a blend with these weights serves, [image, class], where that ranks images otherwise than ``mix``.

    Returns:
        The chosen blend; the preferred one where no class that counts has a known positive and a known negative.
    """
    ones = np.ones((len(labels), 1))
    parts = [np.arange(len(labels))] if folds is None else [np.flatnonzero(folds == fold) for fold in np.unique(folds)]
    in_parts = np.sum([(labels[part] & known[part]).any(axis=0) for part in parts], axis=0)
    counts = in_parts >= min(2, len(parts))  # bool [class]

    def measured(rankings: Sequence[Any], weight: Floats) -> Floats:
        by_fold = [weighted_average_precision(one, weight[part]) for one, part in zip(rankings, parts, strict=True)]
        return mean_over(mean_over(np.stack(by_fold)))  # over folds, then over classes

    tried: list[Weights] = []
    rankings: list[list[Any]] = []
    values: list[float] = []

    def attempt(weights: Weights) -> int:
        """The index of a candidate, which is measured the first time."""
        if weights not in tried:
            scores = mix(members, weights) if score is None else score(weights)
            tried.append(weights)
            rankings.append([rank(labels[part], scores[part], known[part] & counts) for part in parts])
            values.append(float(measured(rankings[-1], ones)[0]))
        return tried.index(weights)

    alone = {name: attempt({name: 1.0}) for name in members}
    usual = preferred_weights({name: values[alone[name]] for name in preferred if name in members})
    first = best = attempt(usual)
    gains: dict[str, dict[str, float]] = {}
    if np.isfinite(values).any():
        blocks = list(draw_weights(units, DRAWS, 100))
        resting = len(np.unique(units[(labels & known)[:, counts].any(axis=1)]))

        @cache
        def drawn(index: int) -> Floats:
            return np.concatenate([measured(rankings[index], block) for block in blocks])

        def gain_over(other: int, index: int) -> dict[str, float]:
            gain = values[index] - values[other]
            if len(np.unique(units)) < 2:  # every draw equals the data, and nothing says how far chance moves it
                return {"gain": gain}
            low, high = interval(drawn(index) - drawn(other), gain, (-1.0, 1.0), resting)
            return {"gain": gain, "low": float(low), "high": float(high)}

        ahead = [name for name, index in alone.items() if values[index] > values[first]]
        better = [name for name in ahead if name in BASELINES or gain_over(first, alone[name]).get("low", 0.0) > 0]
        allowed = [first, *(attempt(weights) for name in better for weights in towards(name, usual))]
        best = max(allowed, key=lambda index: np.nan_to_num(round(values[index], 9), nan=-1.0))
        gains = {name: gain_over(index, best) for name, index in alone.items()}
    listed = {in_words(weights): value for weights, value in zip(tried, values, strict=True) if np.isfinite(value)}
    return Blend(tried[best], chosen_on, listed, gains)
