"""All variants of an evaluation measured on the same bootstrap draws, with intervals of their differences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from capnet.evaluation.bootstrap import MIN_POSITIVES, draw_weights, draws_at_once, interval, positive_units, unseen
from capnet.evaluation.metrics import (
    DEFAULT_THRESHOLD,
    Bools,
    Floats,
    Rankings,
    bucket_masks,
    count,
    means,
    measurable,
    rank,
    weighted_average_precision,
)

PAIRS = (
    ("capnet", "zero_shot"),
    ("capnet", "linear_probe"),
    ("capnet", "single_view"),
    ("single_view", "zero_shot_single_view"),
    ("zero_shot", "zero_shot_single_view"),
)
LEFT_OUT = 1000  # units that are left out in turn: those that carry most of the means


@dataclass(frozen=True)
class Variant:
    """One way to score the same images: scores [image, class], and thresholds [class] where some were chosen."""

    scores: Floats
    thresholds: Floats | None = None

    def decisions(self) -> dict[str, Bools]:
        """Labels given [image, class] at 0.5 (suffix "") and at the chosen thresholds ("_chosen")."""
        decisions = {"": self.scores >= np.float32(DEFAULT_THRESHOLD)}
        if self.thresholds is not None:
            decisions["_chosen"] = self.scores >= self.thresholds.astype(self.scores.dtype)
        return decisions


@dataclass(frozen=True)
class Comparison:
    """Measured variants: ``values[variant][name]`` and ``values_low/high``; differences; AP per class with
    intervals.
    """

    values: dict[str, dict[str, float]]
    differences: dict[str, dict[str, float]]
    ap: dict[str, Floats]  # [class] per variant, NaN without positives or negatives
    ap_low: Floats  # [class] of the first variant, NaN below MIN_POSITIVES
    ap_high: Floats


def compare_variants(
    labels: Bools,
    known: Bools,
    variants: Mapping[str, Variant],
    buckets: list[str],
    units: NDArray[np.int64],
    draws: int,
) -> Comparison:
    """Measure all variants on the same draws.

    A class without positives (in the data or in one draw), or without negatives in the data, is left out of that mean,
    a mean without classes is left out.
    Where all images are of one group there are no intervals.

    Args:
        labels, known: bool [image, class].
        variants: by name; those of PAIRS are also subtracted from each other.
        buckets: head, medium or tail for each class.
        units: int [image]; equal ones are drawn together.
        draws: number of draws.

    Returns:
        Values and differences as fractions of 1; intervals of the AP per class are those of the first variant. A
        difference also says what is left of it without the one unit that carries most of it (``_without_one``).
    """
    masks = bucket_masks(buckets)
    rankings = {name: rank(labels, variant.scores, known) for name, variant in variants.items()}
    decisions = {name: variant.decisions() for name, variant in variants.items()}
    first = next(iter(variants))

    def figures_of(name: str, weights: Floats) -> tuple[Floats, dict[str, Floats]]:
        ap = weighted_average_precision(rankings[name], weights)
        return ap, means(
            ap, {suffix: count(labels, decided, weights, known) for suffix, decided in decisions[name].items()}, masks
        )

    points = {name: figures_of(name, np.ones((len(labels), 1))) for name in variants}
    # everything is drawn together: then every draw equals the data, and nothing says how far chance moves a figure
    single = len(np.unique(units)) < 2
    positives = positive_units(labels & known, units)
    with_interval = np.flatnonzero((positives >= MIN_POSITIVES) & (not single))
    ranked = labels & known & measurable(labels, known)
    resting = {name: len(np.unique(units[(ranked & mask).any(axis=1)])) for name, mask in masks.items()}
    drawn: dict[str, list[dict[str, Floats]]] = {name: [] for name in variants}
    drawn_ap = []
    block = draws_at_once(labels, rankings.values())
    for weights in draw_weights(units, draws, block):
        for name in variants:
            ap, figures = figures_of(name, weights)
            if single:
                figures = {key: np.full_like(value, np.nan) for key, value in figures.items()}
            drawn[name].append(figures)
            if name == first:
                drawn_ap.append(ap[with_interval])
    samples = {name: _concatenated(blocks) for name, blocks in drawn.items()}
    left_out = heaviest_units(labels & known, rankings.values(), units)[: 0 if single else LEFT_OUT]
    kept: dict[str, list[dict[str, Floats]]] = {name: [] for name in variants}
    for at in range(0, len(left_out), block):
        weights = (units[:, None] != left_out[at : at + block]).astype(np.float32)
        for name in variants:
            kept[name].append(figures_of(name, weights)[1])
    without = {name: _concatenated(blocks) for name, blocks in kept.items() if blocks}

    values = {
        name: _with_intervals({key: float(value[0]) for key, value in points[name][1].items()}, samples[name], resting)
        for name in variants
    }
    differences = {}
    for one, other in PAIRS:
        if one in variants and other in variants:
            shared = [key for key in samples[one] if key in samples[other]]
            point = {key: float(points[one][1][key][0] - points[other][1][key][0]) for key in shared}
            drawn_difference = {key: samples[one][key] - samples[other][key] for key in shared}
            paired = differences[f"{one}-{other}"] = _with_intervals(point, drawn_difference, resting, of="difference")
            for key in shared:
                if without and key in paired:
                    left = np.nan_to_num(without[one][key] - without[other][key])  # without its only positives: nothing
                    paired[f"{key}_without_one"] = float(left.min() if paired[key] > 0 else left.max())
    low, high = np.full((2, labels.shape[1]), np.nan)
    for c, sample in zip(with_interval, np.concatenate(drawn_ap, axis=1), strict=True):
        low[c], high[c] = interval(
            sample, float(points[first][0][c, 0]), positives=int(positives[c]), least=unseen(int(positives[c]))
        )
    return Comparison(values, differences, {name: points[name][0][:, 0] for name in variants}, low, high)


def heaviest_units(positives: Bools, rankings: Iterable[Rankings], units: NDArray[np.int64]) -> NDArray[np.int64]:
    """All units, those first that carry most of a mean over classes: a class's weight is shared by its positives, and
    an image carries as well what the AP would gain if it were not above positives.

    Args:
        positives: bool [image, class].
        rankings: of every variant.
        units: int [image] from 0 on.
    """
    weights = 1 / np.maximum(1, positives.sum(axis=0))
    shares = positives @ weights
    for ranking in rankings:
        for c, (start, end) in enumerate(pairwise(ranking.starts)):
            above, hits = ranking.above[start:end], np.asarray(ranking.positive[start:end].sum(axis=1))
            images = np.cumsum(np.asarray(above.sum(axis=1)))
            gains = weights[c] * hits * np.cumsum(hits) / np.maximum(images * (images - 1), 1)
            shares += above.T @ np.cumsum(gains[::-1])[::-1]
    return np.argsort(-np.bincount(units, shares), kind="stable")


def _concatenated(blocks: Sequence[Mapping[str, Floats]]) -> dict[str, Floats]:
    return {key: np.concatenate([block[key] for block in blocks]) for key in blocks[0]}


def _with_intervals(
    points: Mapping[str, float],
    samples: Mapping[str, Floats],
    positives: Mapping[str, int],
    of: Literal["value", "difference"] = "value",
) -> dict[str, float]:
    """``name``, ``name_low``, ``name_high`` for every mean that exists (in the data; in every draw that kept a
    positive).

    Args:
        points: by name.
        samples: [draw] by name.
        positives: as in ``interval``, by name; others are means over all classes.
        of: what these are. Two models that agree in every draw differ by nothing, but the value of one that is the same
            in every draw is only what so few positives show.
    """
    result: dict[str, float] = {}
    for name, point in points.items():
        if np.isfinite(point):
            resting = positives.get(name, positives["mAP"])
            if of == "value":
                low, high = interval(samples[name], point, (0.0, 1.0), resting, unseen(resting))
            else:
                low, high = interval(samples[name], point, (-1.0, 1.0), resting)
            result[name] = point
            if np.isfinite(low):
                result |= {f"{name}_low": low, f"{name}_high": high}
    return result
