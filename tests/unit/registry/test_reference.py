"""The reference for drift has the scores of the rows that the thresholds were chosen on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from capnet.contracts import read_predictions, read_split, write_predictions
from capnet.registry.candidate import read_candidate, reference

Make = Callable[..., dict[str, Path]]


def _chosen_on(paths: dict[str, Path], source: str) -> np.ndarray:
    """Held-out scores of training and validation rows, and thresholds that say where they come from."""
    rows = read_split(paths["split"] / "split.parquet")
    rows = rows[rows["split"] != "test"]
    scores = np.random.default_rng(1).random((len(rows), 4)).astype(np.float32)
    write_predictions(paths["model"] / "out_of_fold.parquet", rows.assign(variant="capnet", scores=list(scores)))
    path = paths["evaluation"] / "thresholds.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"source": source}))
    return scores


def test_all_rows_that_chose_the_thresholds_are_in_it_also_beside_validation_rows(make_outputs: Make) -> None:
    paths = make_outputs()
    scores = _chosen_on(paths, "out_of_fold")
    result = reference(read_candidate(**paths))
    assert (result["source"], result["rows"]) == ("out_of_fold", 30)
    classes = json.loads((paths["evaluation"] / "thresholds.json").read_text())["classes"]
    limits = [item["threshold"] for item in classes]
    assert [item["decided_rate"] for item in result["classes"]] == pytest.approx((scores >= limits).mean(axis=0))


@pytest.mark.parametrize(("source", "split", "rows"), [("val", "val", 10), ("none", "test", 400)])
def test_scores_that_chose_nothing_are_not_in_it(make_outputs: Make, source: str, split: str, rows: int) -> None:
    paths = make_outputs()
    _chosen_on(paths, source)
    path = paths["evaluation"] / "predictions.parquet"
    table = read_predictions(path)
    write_predictions(path, table[table["split"] == split])
    result = reference(read_candidate(**paths))
    assert (result["source"], result["rows"]) == (split, rows)
