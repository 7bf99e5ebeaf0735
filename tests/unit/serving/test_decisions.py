"""The table of decisions of a served model, entry by entry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit

from capnet.commands.label_page import suggestions
from capnet.serving.engine import DECISIONS, Served
from capnet.serving.output import megadetector, wide

NAMES, LIMITS = ["fox", "deer", "owl"], [0.25, 0.5, 0.75]
TEMPERATURE, SHIFT = [0.5, 1.0, 2.0], [-1.0, 0.0, 1.0]
SCORES = np.array([[0.25, 0.25, 0.25], [0.75, 0.5, 0.75]], dtype=np.float32)


@pytest.fixture
def served() -> Served:
    classes = [{"name": name, "threshold": limit} for name, limit in zip(NAMES, LIMITS, strict=True)]
    nobody: Any = None
    return Served(nobody, NAMES, {"classes": classes, "calibration": {"temperature": TEMPERATURE, "shift": SHIFT}}, "")


def probability(score: float, c: int) -> float:
    return float(expit(logit(score) / TEMPERATURE[c] + SHIFT[c]))


def test_every_image_and_class_has_its_own_score_probability_threshold_and_decision(served: Served) -> None:
    frame = served.decisions(SCORES)
    assert tuple(frame.columns) == DECISIONS
    rows = iter(frame.to_dict("records"))
    for picture, given in enumerate(SCORES.tolist()):
        for c, score in enumerate(given):
            row = next(rows)
            assert [row[name] for name in ("picture", "class")] == [picture, NAMES[c]]
            assert [row[name] for name in ("score", "threshold")] == [score, LIMITS[c]]
            assert row["probability"] == pytest.approx(probability(score, c))
            assert row["decision"] == (score >= LIMITS[c]), "a label is given from its threshold on"
    assert next(rows, None) is None


def test_files_of_predictions_hold_the_same_labels(served: Served, tmp_path: Path) -> None:
    blank = np.full(3, 0.125, dtype=np.float32)
    frame = pd.DataFrame({"path": list("abcd"), "fault": ["", "broken", "", ""]})
    frame["scores"] = pd.Series([SCORES[0], None, SCORES[1], blank], dtype=object)
    table = wide(frame, served)
    assert table["labels"].tolist() == [["fox"], [], NAMES, []]
    np.testing.assert_array_equal(table[[f"score {name}" for name in NAMES]].to_numpy()[[0, 2, 3]], [*SCORES, blank])
    with megadetector(tmp_path / "md.json", served, "") as add:
        add(frame)
    found = {item["file"]: item for item in json.loads((tmp_path / "md.json").read_text())["images"]}
    assert found["b"]["detections"] is None
    assert found["d"] == {"file": "d", "detections": []}, "an image without a label is no fault"
    for name, row, labelled in (("a", SCORES[0], [0]), ("c", SCORES[1], [0, 1, 2])):
        expected = sorted(
            ((str(c), float(f"{probability(row[c], c):.4g}")) for c in labelled), key=lambda item: -item[1]
        )
        (box,) = found[name]["detections"]
        assert [tuple(item) for item in box["classifications"]] == expected
        assert box["conf"] == expected[0][1]


def test_a_label_of_a_rare_class_has_a_confidence_above_0(served: Served, tmp_path: Path) -> None:
    served.thresholds["calibration"]["shift"] = [-12.0, -14.0, -16.0]
    with megadetector(tmp_path / "md.json", served, "") as add:
        add(pd.DataFrame({"path": ["a"], "fault": [""], "scores": [SCORES[1]]}))
    (box,) = json.loads((tmp_path / "md.json").read_text())["images"][0]["detections"]
    assert len(box["classifications"]) == 3
    assert 0 < min(number for _, number in box["classifications"]) < 1e-5


def test_the_page_of_labels_fills_in_the_same_labels_and_what_is_more_probable_than_not(served: Served) -> None:
    """Owl on the first image: below its threshold, probable by 0.61."""
    table = wide(pd.DataFrame({"path": ["a", "b"], "fault": ["", ""], "scores": list(SCORES)}), served)
    for item, row, labelled in zip(suggestions(table, served, NAMES), SCORES, ([0, 2], [0, 1, 2]), strict=True):
        order = sorted(range(3), key=lambda c: (c not in labelled, -probability(row[c], c)))
        assert item["labels"] == [(NAMES[c], f"{probability(row[c], c):.2f}", c in labelled) for c in order]
