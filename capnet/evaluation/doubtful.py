"""Which given labels a model doubts, by scores of images that it was not trained on."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, zip_longest

import numpy as np

from capnet.evaluation.metrics import Bools, Floats


@dataclass(frozen=True)
class Doubt:
    """A label that may be wrong: of image ``row`` and class ``column``, given or not, and the probability that it is
    there.
    """

    row: int
    column: int
    labelled: bool
    probability: float


def doubtful_labels(labels: Bools, known: Bools, probabilities: Floats, most: int) -> list[Doubt]:
    """Find labels that are missing or wrong, by confident learning (Northcutt, Jiang and Chuang, JAIR 2021, 3.1).

    A label may be missing where the model is as sure of the class as it is, on average, where the label is given; and
    wrong where it is as sure that the class is not there as it is where the label is not given. Averages are a class's
    own, so that neither frequent classes nor rare ones fill the list. Both kinds take turns, the most certain first.

    Args:
        labels, known: bool [image, class].
        probabilities: calibrated, [image, class] in [0, 1], of models that have not seen the image.
        most: at most so many.
    """
    kinds = []
    for labelled, sure in ((False, probabilities), (True, 1 - probabilities)):
        other = known & (labels != labelled)  # where the annotations say what is doubted here
        enough = other.sum(axis=0) > 0
        average = (sure * other).sum(axis=0) / np.maximum(1, other.sum(axis=0))
        rows, columns = np.nonzero(known & (labels == labelled) & enough & (sure >= average))
        order = np.lexsort((columns, rows, -sure[rows, columns]))[:most]
        entries = zip(rows[order].tolist(), columns[order].tolist(), strict=True)
        kinds.append([Doubt(row, column, labelled, float(probabilities[row, column])) for row, column in entries])
    turns = chain.from_iterable(zip_longest(*kinds))
    return [doubt for doubt in turns if doubt is not None][:most]
