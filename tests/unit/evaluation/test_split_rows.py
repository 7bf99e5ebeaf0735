"""Scores belong to rows by image_id, and to all of them: those of another table are refused, never cut to fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from capnet.errors import ContractError, DataError
from capnet.evaluation.split_rows import SplitRows, aligned, check_scores


def scores_of(rows: str, scored: str) -> list[float]:
    """What ``aligned`` finds for images with these letters; the score of an image is its letter's number."""
    table = pd.DataFrame({"image_id": list(scored), "scores": [np.array([ord(name)]) for name in scored]})
    frame = pd.DataFrame({"image_id": list(rows)})
    return [float(item[0]) for item in aligned(table, frame, "predictions", "test", Path("p.parquet"), "")]


def test_scores_follow_the_rows_whatever_their_order() -> None:
    assert scores_of("cab", "abc") == [ord("c"), ord("a"), ord("b")]


@pytest.mark.parametrize(
    ("scored", "message"),
    [
        ("abcd", "4 predictions for 3 test rows; without: none"),  # of a table from before rows were removed
        ("abd", "3 predictions for 3 test rows; without: c"),
        ("ab", "2 predictions for 3 test rows; without: c"),
    ],
)
def test_scores_of_other_rows_are_refused(scored: str, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        scores_of("abc", scored)


def one_score(score: float) -> SplitRows:
    nothing, scores = np.zeros((2, 2), bool), np.array([[0.5, 0.5], [0.5, score]], np.float32)
    rows = pd.DataFrame({"image_id": ["a", "b"], "path": ["a.jpg", "b.jpg"]})
    return SplitRows("test", rows, nothing, ~nothing, {"capnet": scores})


def test_only_a_score_from_0_to_1_is_a_score() -> None:
    for score in (0.0, 1.0):  # float32's sigmoid of a sure model
        check_scores(one_score(score))
    for score in (np.nan, -1e-7, 1 + 2e-7):
        with pytest.raises(DataError, match=r"variant capnet is not between 0 and 1[\s\S]*test image b \(b.jpg\)"):
            check_scores(one_score(score))
