"""What metrics.json holds, and that `dvc metrics show` prints it into a terminal of 120 columns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from capnet.evaluation.headline import COMPARED, HEADLINE, compared_figures, headline_figures, stage_figures


def evaluation(mAP: float = 0.64123456) -> dict[str, Any]:
    def variant(value: float) -> dict[str, float]:
        means = dict.fromkeys((*HEADLINE, "CF1", "OF1", "CF1_chosen", "OF1_chosen"), value)
        return means | {f"{name}_{end}": value / 2 for name in means for end in ("low", "high")}

    difference = {"mAP": -0.22123456, "mAP_low": -0.3, "mAP_high": -0.1, "tail": 0.0}
    return {
        "schema": 1,
        "capnet": variant(mAP) | {"CF1_chosen": 0.25},
        "zero_shot": variant(0.5),
        "linear_probe": variant(0.25),
        "differences": {"capnet-zero_shot": difference},
        "slices": {"night": {"capnet": variant(0.1)}},
        "test_rows": 700,
    }


def test_metrics_are_flat_few_and_rounded() -> None:
    figures = compared_figures(evaluation())
    assert len(figures) <= 20
    assert list(figures) == list(COMPARED), "what is not among them is not tried in 120 columns"
    assert all(isinstance(value, float) for value in figures.values())
    assert (figures["mAP"], figures["mAP_low"], figures["gain"]) == (0.6412, 0.3206, -0.2212)
    assert headline_figures(evaluation())["mAP"] == 0.64123456
    assert headline_figures(evaluation())["CF1"] == 0.25, "at the chosen thresholds"
    stage = stage_figures(evaluation())
    assert (stage["mAP"], stage["zero_shot_mAP"], stage["linear_probe_mAP"]) == (0.64123456, 0.5, 0.25)


def test_what_was_not_measured_is_left_out() -> None:
    bare = {"capnet": {"mAP": 0.5, "tail": 0.25}, "differences": {}}
    assert compared_figures(bare) == {"mAP": 0.5, "tail": 0.25}
    assert stage_figures(bare) == {"mAP": 0.5, "tail": 0.25}


@pytest.mark.slow
@pytest.mark.parametrize("mAP", [0.64123456, 1.0])
def test_dvc_shows_them_in_120_columns(tmp_path: Path, mAP: float) -> None:
    path = tmp_path / "outputs" / "evaluation" / "metrics.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(compared_figures(evaluation(mAP))))
    (tmp_path / "dvc.yaml").write_text("metrics:\n  - outputs/evaluation/metrics.json\n")
    environment = {**os.environ, "COLUMNS": "120", "DVC_NO_ANALYTICS": "1"}

    def dvc(*words: str) -> str:
        command = [sys.executable, "-m", "dvc", *words]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        return done.stdout

    dvc("init", "--no-scm", "--quiet")
    head, values = dvc("metrics", "show").splitlines()
    assert max(len(head), len(values)) <= 120
    assert head.split()[1:] == sorted(compared_figures(evaluation()))
    assert values.split()[0] == "outputs/evaluation/metrics.json"
