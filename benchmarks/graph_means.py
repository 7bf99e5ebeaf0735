"""Nearness of rows, averaged over classes and draws, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.graph_rows import CUTS, MEASURES

CLASS_DRAWS = 1000  # bootstrap draws of classes
MIN_CLASSES = 5  # fewer classes in a bucket allow no interval over classes
MANY = 10**9  # training images: no class has more
BINS = ((1, 4), (5, 9), (10, 19), (20, 49), (50, 99), (100, MANY))  # training images, first and last


@dataclass(frozen=True)
class Measured:
    """All draws of one set: ``values[measure][source]`` float64 and training ``images`` int64, both [draw, class]."""

    values: Mapping[str, Mapping[str, np.ndarray]]
    images: np.ndarray

    @classmethod
    def of(cls, draws: Sequence[dict[str, dict[str, np.ndarray]]], images: Sequence[np.ndarray]) -> Measured:
        """Put draws on top of each other."""
        values: dict[str, dict[str, np.ndarray]] = {}
        for name in MEASURES:
            values[name] = {source: np.stack([draw[name][source] for draw in draws]) for source in draws[0][name]}
        return cls(values, np.stack(images).astype(np.int64))

    def within(self, first: int, last: int) -> np.ndarray:
        """bool [draw, class]: classes with that many training images."""
        return (self.images >= first) & (self.images <= last)

    def bucket(self, name: str) -> np.ndarray:
        """bool [draw, class]: classes of one bucket; a class may change its bucket from draw to draw."""
        head, tail = CUTS
        ends = {"head": (head, MANY), "medium": (tail, head - 1), "tail": (1, tail - 1)}
        return self.within(*ends[name])


@dataclass(frozen=True)
class Mean:
    """A mean over classes, then over draws, with its 95 % interval over classes and the middle 95 % of the draws."""

    value: float
    classes: float  # mean number of classes a draw
    over_classes: tuple[float, float]
    over_draws: tuple[float, float]  # NaN where there is one draw


def mean(values: np.ndarray, chosen: np.ndarray) -> Mean:
    """Mean of the ``chosen`` entries of ``values``, both [draw, class]; entries that are NaN are left out.

    The interval over classes draws classes with replacement, the same ones in every draw of the list. Below MIN_CLASSES
    classes there is none.
    """
    used = chosen & ~np.isnan(values)
    filled, weights = np.where(used, values, 0.0), used.astype(np.float64)
    rows = used.any(axis=1)
    nothing = (float("nan"), float("nan"))
    if not rows.any():
        return Mean(float("nan"), 0.0, nothing, nothing)
    filled, weights = filled[rows], weights[rows]
    points = filled.sum(axis=1) / weights.sum(axis=1)
    over_draws = tuple(np.quantile(points, [0.025, 0.975]).tolist()) if len(points) > 1 else nothing
    over_classes = nothing
    ever = np.flatnonzero(used.any(axis=0))
    if len(ever) >= MIN_CLASSES:
        picked = np.random.default_rng(0).integers(0, len(ever), (CLASS_DRAWS, len(ever)))
        times = np.stack([np.bincount(row, minlength=len(ever)) for row in picked]).astype(np.float64)
        above, below = times @ filled[:, ever].T, times @ weights[:, ever].T  # [bootstrap, draw]
        ratio = np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)
        kept = ratio[~np.isnan(ratio).all(axis=1)]
        over_classes = tuple(np.quantile(np.nanmean(kept, axis=1), [0.025, 0.975]).tolist())
    return Mean(float(points.mean()), float(weights.sum(axis=1).mean()), over_classes, over_draws)
