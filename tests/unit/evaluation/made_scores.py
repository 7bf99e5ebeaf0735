"""Made labels and scores: long-tailed classes, scores that carry some of the labels, entries that nobody knows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit


@dataclass(frozen=True)
class Made:
    """labels and known bool [picture, class], scores float32 [picture, class] in (0, 1)."""

    labels: np.ndarray
    known: np.ndarray
    scores: np.ndarray


def make(
    pictures: int,
    classes: int,
    seed: int = 0,
    *,
    gain: float = 2.0,
    unknown: float = 0.0,
    levels: int = 0,
    rarest: float = 0.02,
) -> Made:
    """``levels`` above 0 rounds the scores to so many values, so that many are equal."""
    rng = np.random.default_rng(seed)
    labels = rng.random((pictures, classes)) < np.geomspace(0.4, rarest, classes)
    scores = expit(gain * labels + rng.normal(size=labels.shape) - 1.5)
    if levels:
        scores = np.round(scores * levels) / (levels + 1) + 0.25 / levels
    known = rng.random(labels.shape) >= unknown
    return Made(labels & known, known, scores.astype(np.float32))
