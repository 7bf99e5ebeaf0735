"""What thresholds and calibration that were chosen on held-out rows give on the test rows, by bucket."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from benchmarks.ablation_sets import Set, Trained
from capnet.evaluation.bootstrap import known_groups
from capnet.evaluation.calibration import brier, calibrate
from capnet.evaluation.curves import reliability
from capnet.evaluation.metrics import bucket_masks
from capnet.evaluation.thresholds import choose_thresholds
from capnet.training.scoring import combine

OBJECTIVE = "recall>=0.9"


def by_bucket(data: Set, scores: np.ndarray, held: np.ndarray, held_rows: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Recall and precision on the test rows (all entries of a bucket together), Brier score and ECE of calibrated
    scores.

    Args:
        data: the set, whose buckets and labels count.
        scores: of the test rows, float32 [image, class].
        held: of ``held_rows``, float32 [image, class]; thresholds and calibration are chosen there.
        held_rows: rows whose scores are of models that had not seen them.

    Returns:
        Figures as fractions of 1, by bucket.
    """
    trainer = data.trainer({}, 0)
    settings = trainer.params.evaluate
    val, test = trainer.labels(held_rows), trainer.labels(data.rows["test"])
    chosen = choose_thresholds(
        val.targets.numpy(),
        val.known.numpy(),
        held,
        OBJECTIVE,
        settings.threshold.min_positives,
        settings.calibration_prior,
        known_groups(held_rows["group"].tolist()),
    )
    targets, known = test.targets.numpy(), test.known.numpy()
    decided, probabilities = scores >= chosen.threshold, calibrate(chosen.calibration, scores)
    result = {}
    for name, mask in bucket_masks([item.bucket for item in data.classes.items]).items():
        part = known & mask
        hits = int((decided & targets & part).sum())
        result[name] = {
            "recall": hits / max(int((targets & part).sum()), 1),
            "precision": hits / max(int((decided & part).sum()), 1),
            "Brier": brier(targets, part, probabilities),
            "ECE": calibration_error(targets[part], probabilities[part]),
        }
    return result


def calibration_error(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Expected calibration error of entries [entry]: mean distance of probability and observed frequency in ten equal
    steps.
    """
    steps = reliability(labels, probabilities)
    return sum(step["count"] * abs(step["mean"] - step["observed"]) for step in steps) / sum(
        step["count"] for step in steps
    )


def table(data: Set, rows: Mapping[str, Sequence[tuple[Trained, Mapping[str, float]]]]) -> list[str]:
    """Markdown: a line a row and bucket, means over seeds.

    Args:
        data: the set.
        rows: for each row its trainings and the weights of their members, one a seed.
    """
    lines = [
        f"| row | bucket | recall at {OBJECTIVE} | precision there | Brier x 100 | ECE x 100 |",
        "|---|---|---|---|---|---|",
    ]
    average = data.trainer({}, 0).params.tte.average
    for name, trained in rows.items():
        seen = [
            by_bucket(
                data, combine(item.members, weights, average), combine(item.held, weights, average), item.held_rows
            )
            for item, weights in trained
        ]
        for bucket in seen[0]:
            mean = {figure: 100 * float(np.mean([item[bucket][figure] for item in seen])) for figure in seen[0][bucket]}
            lines.append(
                f"| {name} | {bucket} | {mean['recall']:.1f} | {mean['precision']:.1f} | {mean['Brier']:.2f} |"
                f" {mean['ECE']:.2f} |"
            )
    return lines
