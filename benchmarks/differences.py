"""Mean average precision over seeds, with bootstrap draws that make the difference of two models a paired one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from capnet.evaluation.bootstrap import draw_weights, interval
from capnet.evaluation.metrics import Bools, bucket_masks, mean_over, rank, weighted_average_precision

Draws = dict[str, np.ndarray]  # by mean (mAP, head, medium, tail): the point and then one value a draw


class Compare:
    """Means of one set's test rows and their bootstrap draws: the same for all models, of groups as a whole.

    Args:
        targets, known: bool [image, class].
        buckets: of each class.
        units: group of each image, int [image].
        draws: how many.
    """

    def __init__(
        self, targets: Bools, known: Bools, buckets: Sequence[str], units: NDArray[np.int64], draws: int
    ) -> None:
        self.targets, self.known, self.masks = targets, known, bucket_masks(list(buckets))
        self.blocks = [np.ones((len(targets), 1), dtype=np.float32), *draw_weights(units, draws, 100)]

    def means(self, seeds: Sequence[np.ndarray]) -> Draws:
        """Means over seeds of scores [image, class]: the point, then the draws."""
        precisions = []
        for scores in seeds:
            ranking = rank(self.targets, scores, self.known)
            precisions.append(
                np.concatenate([weighted_average_precision(ranking, block) for block in self.blocks], axis=1)
            )
        return {name: np.mean([mean_over(ap, mask) for ap in precisions], axis=0) for name, mask in self.masks.items()}


def bounds(one: np.ndarray, other: np.ndarray) -> list[float]:
    """The difference in points, its low and its high end, of a point and its draws."""
    gap = one - other
    low, high = interval(gap[1:], float(gap[0]), (-1.0, 1.0))
    return [100 * float(gap[0]), 100 * low, 100 * high]


def difference(one: np.ndarray, other: np.ndarray) -> str:
    """``+1.2 [0.3, 2.1]`` in points."""
    return "{:+.1f} [{:.1f}, {:.1f}]".format(*bounds(one, other))
