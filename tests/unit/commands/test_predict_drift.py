"""`capnet predict --fail-on-drift`: an exit code for cron jobs and CI, and no other exit code without it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from capnet.cli import main
from capnet.commands import predict as command
from capnet.errors import ContractError, GateError
from capnet.serving import predict as prediction
from capnet.serving.drift import Drift, reference_document

NAMES = ["cat", "dog", "owl"]
LIMITS = np.full(3, 0.7)


def _scores(rows: int, shift: float = 0.0) -> np.ndarray:
    scores = np.random.default_rng(rows).beta(2, 4, (rows, 3))
    scores[:, 1] = np.clip(scores[:, 1] + shift, 0, 1)
    return scores


@pytest.fixture
def predict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the command over a batch of these scores with a model that has this reference."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("{}\n")
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "a.jpg").touch()
    whole = reference_document(NAMES, np.full(3, 0.1), _scores(1000), LIMITS)

    def call(scores: np.ndarray, *options: str, reference: Mapping[str, Any] = whole) -> Result:
        @contextmanager
        def model(*_: Any) -> Iterator[tuple[Any, str, Mapping[str, Any]]]:
            yield SimpleNamespace(class_thresholds=LIMITS), "capnet version 1", reference

        def predicted(served: Any, key: str, source: Any, out: Path, drift: Drift | None) -> prediction.Predicted:
            prediction.drift_file(out).unlink(missing_ok=True)  # as the real one: test_predict_again
            out.touch()
            if drift is not None:
                drift.add(scores)
            return prediction.Predicted(len(scores))

        monkeypatch.setattr(command, "open_model", model)
        monkeypatch.setattr(prediction, "predict", predicted)
        return CliRunner().invoke(main, ["predict", "--input", "new", "--out", "new.csv", *options])

    return call


def test_a_drifted_batch_is_refused_after_everything_is_written(predict: Any, tmp_path: Path) -> None:
    error = predict(_scores(400, 0.3), "--fail-on-drift").exception
    assert isinstance(error, GateError)
    assert error.exit_code == 5
    (problem,) = error.problems
    assert problem.what == "1 of 3 classes differ from the reference: dog"
    assert problem.where == "new.csv.drift.json"
    report = json.loads((tmp_path / "new.csv.drift.json").read_text())
    assert [item["name"] for item in report["classes"] if item["drifted"]] == ["dog"]
    assert (tmp_path / "new.csv").is_file()


def test_without_the_option_drift_changes_no_exit_code(predict: Any) -> None:
    result = predict(_scores(400, 0.3))
    assert result.exit_code == 0
    assert "drift: 1 of 3 classes differ from the reference" in result.output


def test_no_report_of_earlier_predictions_is_left_with_new_ones(predict: Any, tmp_path: Path) -> None:
    assert predict(_scores(400)).exit_code == 0
    report = tmp_path / "new.csv.drift.json"
    assert report.is_file()
    assert predict(_scores(400, 0.3), reference={}).exit_code == 0
    assert not report.exists(), "the model that labelled these images has no reference"


@pytest.mark.parametrize(("rows", "shift", "last"), [(400, 0.0, "0 of 3 classes"), (20, 0.5, "too few images to tell")])
def test_equal_and_small_batches_pass(predict: Any, rows: int, shift: float, last: str) -> None:
    result = predict(_scores(rows, shift), "--fail-on-drift")
    assert result.exit_code == 0
    assert result.output.splitlines()[-1].startswith(f"drift: {last}")


def test_it_is_said_whether_the_batch_or_the_reference_is_too_small(predict: Any) -> None:
    small = reference_document(NAMES, np.full(3, 0.1), _scores(48), LIMITS)
    last = predict(_scores(400), reference=small).output.splitlines()[-1]
    assert last == "drift: too few images to tell: 400 now, 48 in the reference; 50 of each are needed"


def test_a_model_that_cannot_be_compared_with_is_refused_before_any_image_is_scored(
    predict: Any, tmp_path: Path
) -> None:
    error = predict(_scores(400), "--fail-on-drift", reference={}).exception
    assert isinstance(error, ContractError)
    assert "no reference" in str(error)
    assert not (tmp_path / "new.csv").exists()


def test_the_help_names_the_exit_code() -> None:
    text = subprocess.run(
        [sys.executable, "-m", "capnet.cli", "predict", "--help"], check=True, capture_output=True, text=True
    ).stdout
    assert "--fail-on-drift" in text
    assert "exit code 5" in text
