"""The figures of every class and of every slice against scikit-learn, with scores that equal their thresholds."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score
from unit.evaluation.made_scores import make

from capnet.contracts import Classes
from capnet.contracts.classes import ClassInfo
from capnet.evaluation.calibration import Calibration
from capnet.evaluation.results import NO_SLICE, compare_on_test_rows, evaluation_document, per_class, slices
from capnet.evaluation.split_rows import SplitRows
from capnet.evaluation.thresholds import Thresholds

COUNTS, BUCKETS = [40, 900, 7, 300], ["medium", "head", "tail", "head"]
CLASSES = Classes(tuple(ClassInfo(f"c{n}", f"c{n}", f"c{n}", False, COUNTS[n], BUCKETS[n]) for n in range(4)))
MADE = make(120, 4, seed=4, unknown=0.1, levels=9, rarest=0.1)
CUTS = np.array([np.unique(column)[5] for column in MADE.scores.T], dtype=np.float32)
ROWS = pd.DataFrame({"group": [""] * 120, "slice": [None, "night", ""] * 40})
TEST = SplitRows("test", ROWS, MADE.labels, MADE.known, {"capnet": MADE.scores})
NOTHING, MARKS = np.full(4, np.nan), np.arange(4) == 2
CHOSEN = Thresholds(CUTS, MARKS, ~MARKS, np.arange(4), NOTHING, NOTHING, Calibration(np.ones(4), np.zeros(4)))


def test_classes_have_scikit_learns_figures_by_falling_train_count() -> None:
    assert (MADE.scores == CUTS).any(axis=0).all(), "a label is given from its threshold on"
    whole = compare_on_test_rows(TEST, {"capnet": CHOSEN}, CLASSES, 20)
    frame = per_class(TEST, whole, CHOSEN, CLASSES)
    assert whole.values["capnet"]["CF1_chosen"] == pytest.approx(frame["f1"].mean())
    given, y = (MADE.scores >= CUTS)[MADE.known], MADE.labels[MADE.known]
    assert whole.values["capnet"]["OF1_chosen"] == pytest.approx(f1_score(y, given))
    assert frame["class"].tolist() == ["c1", "c3", "c0", "c2"]
    assert frame["borrowed"].tolist() == [False, False, False, True]
    for c, row in zip((1, 3, 0, 2), frame.to_dict("records"), strict=True):
        known = MADE.known[:, c]
        y, score = MADE.labels[known, c], MADE.scores[known, c]
        given = score >= CUTS[c]
        assert row["positives"] == y.sum()
        assert row["ap"] == pytest.approx(average_precision_score(y, score))
        assert [row["precision"], row["recall"], row["f1"]] == pytest.approx(
            [precision_score(y, given), recall_score(y, given), f1_score(y, given)]
        )
        assert row["precision_low"] < row["precision"] < row["precision_high"]


def test_a_class_that_is_unknown_wherever_it_is_not_a_positive_is_in_no_mean() -> None:
    known = MADE.known & (MADE.labels | (np.arange(4) != 3))
    test = SplitRows("test", ROWS, MADE.labels, known, TEST.scores)
    whole = compare_on_test_rows(test, {"capnet": CHOSEN}, CLASSES, 20)
    assert evaluation_document(test, whole, {"capnet": CHOSEN}, CLASSES, 20)["left_out"] == ["c3"]
    ap = [average_precision_score(MADE.labels[row, c], MADE.scores[row, c]) for c, row in enumerate(known.T) if c != 3]
    assert whole.values["capnet"]["mAP"] == pytest.approx(np.mean(ap))
    assert per_class(test, whole, CHOSEN, CLASSES).set_index("class")["ap"].isna()["c3"]


def test_a_slice_has_the_figures_of_its_own_rows() -> None:
    night = np.arange(120) % 3 == 1
    assert {name: chosen.tolist() for name, chosen in slices(ROWS).items()} == {
        "night": night.tolist(),
        NO_SLICE: (~night).tolist(),
    }
    assert slices(ROWS[night]) == {}
    whole = compare_on_test_rows(TEST, {}, CLASSES, 20)
    found = evaluation_document(TEST, whole, {}, CLASSES, 20)["slices"]
    for name, chosen in (("night", night), (NO_SLICE, ~night)):
        known = [MADE.known[:, c] & chosen for c in range(4)]
        expected = [average_precision_score(MADE.labels[k, c], MADE.scores[k, c]) for c, k in enumerate(known)]
        assert found[name]["capnet"]["mAP"] == pytest.approx(np.mean(expected))
        assert found[name]["capnet"]["head"] == pytest.approx((expected[1] + expected[3]) / 2)
