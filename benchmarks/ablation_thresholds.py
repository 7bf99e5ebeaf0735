"""How thresholds and calibration that were chosen on held-out rows do on the test rows, by bucket."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.ablation_sets import Set, Trained
from capnet.contracts import sampling_units
from capnet.evaluation.bootstrap import draw_weights, interval
from capnet.evaluation.calibration import calibrate
from capnet.evaluation.curves import BINS
from capnet.evaluation.metrics import bucket_masks
from capnet.evaluation.thresholds import choose_thresholds
from capnet.training.scoring import combine

FIGURES = ("recall", "precision", "Brier", "ECE")
Floats = NDArray[np.float64]


def figures(
    labels: NDArray[np.bool_],
    known: NDArray[np.bool_],
    decided: NDArray[np.bool_],
    probabilities: Floats,
    times: NDArray[np.float32],
) -> dict[str, Floats]:
    """Recall and precision of decisions, Brier score and ECE of probabilities, over all known entries together.

    The expected calibration error is the mean distance of probability and observed frequency in BINS equal steps.

    Args:
        labels, known, decided: bool [image, class].
        probabilities: [image, class] in [0, 1].
        times: how often each image counts, [image, draw].

    Returns:
        Fractions of 1 [draw], by the names in FIGURES; NaN where nothing counts.
    """

    def total(entries: NDArray[Any]) -> Floats:
        """Sums over known entries [image, class], [draw]."""
        return (entries * known).sum(axis=1).astype(np.float64) @ times

    step = np.minimum((probabilities * BINS).astype(int), BINS - 1)
    gaps = sum(np.abs(total((probabilities - labels) * (step == number))) for number in range(BINS))
    hits, entries = total(decided & labels), total(np.ones_like(probabilities))
    with np.errstate(invalid="ignore"):
        return {
            "recall": hits / total(labels),
            "precision": hits / total(decided),
            "Brier": total((probabilities - labels) ** 2) / entries,
            "ECE": gaps / entries,
        }


def by_bucket(
    data: Set,
    scores: np.ndarray,
    held: np.ndarray,
    held_rows: pd.DataFrame,
    times: NDArray[np.float32],
    objective: str,
) -> dict[str, dict[str, Floats]]:
    """``figures`` [draw] of the test rows, by bucket, with thresholds and calibration that ``held_rows`` chose.

    Args:
        data: the set, whose buckets and labels count.
        scores: of the test rows, float32 [image, class].
        held: of ``held_rows``, float32 [image, class].
        held_rows: rows whose scores are of models that had not seen them.
        times: how often each test row counts, [image, draw].
        objective: of the thresholds, as in the settings.
    """
    trainer = data.trainer({}, 0)
    settings = trainer.params.evaluate
    val, test = trainer.labels(held_rows), trainer.labels(data.rows["test"])
    chosen = choose_thresholds(
        val.targets.numpy(),
        val.known.numpy(),
        held,
        objective,
        settings.threshold.min_positives,
        settings.calibration_prior,
        sampling_units(held_rows),
    )
    targets, known = test.targets.numpy().astype(bool), test.known.numpy()
    decided = scores >= chosen.threshold
    probabilities = calibrate(chosen.calibration, scores).astype(np.float64)
    return {
        name: figures(targets, known & mask, decided, probabilities, times)
        for name, mask in bucket_masks(data.classes.buckets).items()
    }


def table(
    data: Set, rows: Mapping[str, Sequence[tuple[Trained, Mapping[str, float]]]], first: str, draws: int, objective: str
) -> list[str]:
    """Markdown: a line a row and bucket, means over seeds, with intervals of recall and precision and of the first row
    minus it.

    Args:
        data: the set.
        rows: for each row its trainings and the weights of their members, one a seed.
        first: the row that is compared with the others.
        draws: of the bootstrap.
        objective: of the thresholds.
    """
    lines = [
        f"| row | bucket | recall at {objective} | precision there | Brier x 100 | ECE x 100 |"
        f" {first} minus it: recall | Brier x 100 | ECE x 100 |",
        "|---" * 9 + "|",
    ]
    average = data.trainer({}, 0).params.tte.average
    times = np.concatenate(
        [np.ones((len(data.units), 1), dtype=np.float32), *draw_weights(data.units, draws, draws)], axis=1
    )
    means: dict[str, dict[str, dict[str, Floats]]] = {}
    for name, trained in rows.items():
        seeds = [
            by_bucket(
                data,
                combine(item.members, weights, average),
                combine(item.held, weights, average),
                item.held_rows,
                times,
                objective,
            )
            for item, weights in trained
        ]
        means[name] = {
            bucket: {figure: 100 * np.mean([seed[bucket][figure] for seed in seeds], axis=0) for figure in FIGURES}
            for bucket in seeds[0]
        }
    for name, buckets in means.items():
        for bucket, mean in buckets.items():
            cells = [f"{mean[figure][0]:.{digits}f}" for figure, digits in zip(FIGURES, (1, 1, 2, 2), strict=True)]
            for column, figure in enumerate(("recall", "precision")):
                low, high = interval(mean[figure][1:], mean[figure][0], (0.0, 100.0))
                cells[column] += f" [{low:.1f}, {high:.1f}]"
            for figure, digits in (("recall", 1), ("Brier", 2), ("ECE", 2)):
                gap = means[first][bucket][figure] - mean[figure]
                low, high = interval(gap[1:], float(gap[0]), (-100.0, 100.0))
                cells.append(f"{gap[0]:+.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]" if name != first else "")
            lines.append(f"| {name} | {bucket} | {' | '.join(cells)} |")
    return lines
