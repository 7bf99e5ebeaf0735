"""The model's memory of its own pictures: label rates of the training rows, scores of rows that it was not fitted
to.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from capnet.contracts import read_predictions, read_split
from capnet.evaluation.split_rows import make_split
from capnet.evaluation.thresholds import limits_of
from capnet.registry.candidate import Candidate
from capnet.serving.drift import reference_document


def reference(candidate: Candidate) -> dict[str, Any]:
    """From validation rows, else out-of-fold scores of the training rows, else test rows; rates are over known
    labels.
    """
    train = make_split(read_split(candidate.split / "split.parquet"), "train", candidate.classes, {})
    rates = train.labels.sum(axis=0) / np.maximum(1, train.known.sum(axis=0))
    found = read_predictions(candidate.evaluation / "predictions.parquet")
    found = found[found["variant"] == "capnet"]
    held_out, source = candidate.model / "out_of_fold.parquet", "val"
    rows = found[found["split"] == "val"]
    if rows.empty and held_out.is_file():
        rows, source = read_predictions(held_out), "out_of_fold"
    elif rows.empty:
        rows, source = found[found["split"] == "test"], "test"
    scores = np.stack(rows["scores"].tolist()).astype(np.float32)
    limits, _ = limits_of(candidate.thresholds)
    return reference_document(candidate.classes.names, rates, scores, limits, source)
