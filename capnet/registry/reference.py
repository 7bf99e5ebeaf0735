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
    """From the rows that the thresholds were chosen on: out-of-fold scores or validation rows; where none were, from
    test rows. Rates are over known labels.
    """
    train = make_split(read_split(candidate.split / "split.parquet"), "train", candidate.classes, {})
    rates = train.labels.sum(axis=0) / np.maximum(1, train.known.sum(axis=0))
    source = "out_of_fold" if candidate.thresholds.get("source") == "out_of_fold" else "val"
    if source == "out_of_fold":
        rows = read_predictions(candidate.model / "out_of_fold.parquet")
    else:
        found = read_predictions(candidate.evaluation / "predictions.parquet")
        found = found[found["variant"] == "capnet"]
        rows = found[found["split"] == "val"]
        if rows.empty:
            rows, source = found[found["split"] == "test"], "test"
    scores = np.stack(rows["scores"].tolist()).astype(np.float32)
    limits, _ = limits_of(candidate.thresholds)
    return reference_document(candidate.classes.names, rates, scores, limits, source)
