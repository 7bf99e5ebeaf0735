"""Which images are left out in turn, where there are too many to leave out each: those that a mean hangs on most."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import average_precision_score
from unit.evaluation.made_scores import make

from capnet.evaluation.metrics import rank
from capnet.evaluation.variants import heaviest_units


def test_images_without_a_label_come_in_the_order_of_what_the_map_gains_without_them() -> None:
    made, apart = make(80, 4, seed=3, rarest=0.1), np.arange(80)

    def mean(rows: np.ndarray) -> float:
        return float(np.mean([average_precision_score(made.labels[rows, c], made.scores[rows, c]) for c in range(4)]))

    gains = {row: mean(apart != row) - mean(apart >= 0) for row in np.flatnonzero(~made.labels.any(axis=1)).tolist()}
    order = heaviest_units(made.labels, [rank(made.labels, made.scores, made.known)], apart)
    found = [round(gains[unit], 6) for unit in order.tolist() if unit in gains]
    assert found == sorted(found, reverse=True)
    assert found[0] > found[5] > 0
