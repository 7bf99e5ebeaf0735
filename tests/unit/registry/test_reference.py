"""The reference for drift has the served model's scores of the test rows, and no others."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from unit.measured import measured

from capnet.contracts import read_predictions, read_split, write_predictions
from capnet.registry.candidate import read_candidate
from capnet.registry.figures import reference

Make = Callable[..., dict[str, Path]]


@pytest.mark.parametrize("source", ["out_of_fold", "val", "none"])
def test_scores_of_other_rows_and_of_other_models_are_not_in_it(make_outputs: Make, source: str) -> None:
    paths = make_outputs()
    rows = read_split(paths["split"] / "split.parquet")
    others = rows[rows["split"] != "test"]
    ones = np.ones((len(others), 4), dtype=np.float32)
    write_predictions(paths["model"] / "out_of_fold.parquet", others.assign(variant="capnet", scores=list(ones)))
    measured(paths["model"].parent)
    path = paths["evaluation"] / "thresholds.json"
    thresholds = json.loads(path.read_text()) | {"source": source}
    path.write_text(json.dumps(thresholds))
    result = reference(read_candidate(**paths))
    table = read_predictions(paths["evaluation"] / "predictions.parquet")
    scores = np.stack(table[(table["variant"] == "capnet") & (table["split"] == "test")]["scores"].tolist())
    limits = [item["threshold"] for item in thresholds["classes"]]
    assert (result["source"], result["rows"]) == ("test", (rows["split"] == "test").sum())
    assert [item["decided_rate"] for item in result["classes"]] == pytest.approx((scores >= limits).mean(axis=0))
