"""A made-up split table with scores for each split, as the evaluate stage takes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit

from capnet.config import Evaluate
from capnet.contracts import Classes, label_matrix, make_classes
from capnet.steps.evaluate_scores import evaluate_scores

VIEWS = {"views": 5, "expand": 24, "average": "logits"}
GAIN = {"capnet": 2.5, "single_view": 2.2, "zero_shot": 1.0, "zero_shot_single_view": 0.9}
FAST = Evaluate(bootstrap=100)


@dataclass
class Scored:
    scores: dict[str, np.ndarray]
    features: np.ndarray


@dataclass
class Case:
    """A split table with scores for each side, in the order of its rows."""

    table: pd.DataFrame
    classes: Classes
    val: Scored | None
    test: Scored
    train_features: np.ndarray

    def evaluate(self, config: Evaluate = FAST, out_of_fold: pd.DataFrame | None = None) -> dict[str, Any]:
        return evaluate_scores(
            self.table, self.classes, self.val, self.test, self.train_features, config, out_of_fold, VIEWS
        )

    def labels(self, split: str) -> np.ndarray:
        return label_matrix(self.table[self.table["split"] == split]["labels"], len(self.classes))

    def known(self, split: str) -> np.ndarray:
        return ~label_matrix(self.table[self.table["split"] == split]["unknown"], len(self.classes))


def make_case(
    n_classes: int = 6,
    sizes: tuple[int, int, int] = (60, 40, 80),
    *,
    unknown: float = 0.0,
    slices: tuple[str | None, ...] = (None,),
    names: list[str] | None = None,
    buckets: tuple[int, int] = (15, 6),
    seed: int = 0,
) -> Case:
    rng = np.random.default_rng(seed)
    total = sum(sizes)
    labels = rng.random((total, n_classes)) < np.geomspace(0.4, 0.06, n_classes)
    unknowns = rng.random(labels.shape) < unknown
    split = np.array([name for name, size in zip(("train", "val", "test"), sizes, strict=True) for _ in range(size)])
    order = rng.permutation(total)  # sides are mixed in the table
    split = split[order]
    table = pd.DataFrame(
        {
            "image_id": [f"p{row:05d}" for row in range(total)],
            "path": [f"images/p{row:05d}.jpg" for row in range(total)],
            "labels": [np.flatnonzero(row) for row in labels & ~unknowns],
            "unknown": [np.flatnonzero(row) for row in unknowns],
            "group": None,
            "slice": [slices[row % len(slices)] for row in range(total)],
            "split": split,
        }
    )
    train = labels[split == "train"] & ~unknowns[split == "train"]
    classes = make_classes(names or [f"class {c}" for c in range(n_classes)]).with_counts(
        train.sum(axis=0).tolist(), buckets
    )
    features = (2 * rng.normal(size=(total, 3, 24)) + (labels @ rng.normal(size=(n_classes, 24)))[:, None]).astype(
        np.float32
    )
    noise = rng.normal(size=labels.shape)

    def scored(name: str) -> Scored:
        rows = split == name
        return Scored(
            {
                variant: expit(gain * labels[rows] + noise[rows] - 2).astype(np.float32)
                for variant, gain in GAIN.items()
            },
            features[rows],
        )

    return Case(table, classes, scored("val") if sizes[1] else None, scored("test"), features[split == "train"])


def stored(result: dict[str, Any], variant: str, split: str) -> np.ndarray:
    frame = result["predictions"]
    return np.stack(frame[(frame["variant"] == variant) & (frame["split"] == split)]["scores"].tolist())
