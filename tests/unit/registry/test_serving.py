"""The registered model, loaded back by MLflow: the same scores as capnet's own scorer, from paths and from base64."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from capnet.config import Register, Runtime
from capnet.contracts import read_json, sha256_file
from capnet.errors import DataError
from capnet.evaluation.tte import score_pictures
from capnet.registry.candidate import read_candidate
from capnet.registry.register import register_version
from capnet.registry.serving import picture_files, table

Make = Callable[..., dict[str, Path]]


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Three pictures of noise, one of them PNG with a name that says nothing."""
    random = np.random.default_rng(0)
    paths = [tmp_path / name for name in ("a.jpg", "b b.jpg", "c")]
    for path, size in zip(paths, ((50, 40), (64, 64), (33, 90)), strict=True):
        Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path, format="PNG" if path.suffix == "" else "JPEG")
    return paths


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


@pytest.mark.parametrize("zero_shot_weight", [0.0, 0.3])
def test_the_registered_model_gives_the_scores_of_the_evaluation(
    database: Path, make_outputs: Make, pictures: list[Path], tmp_path: Path, zero_shot_weight: float
) -> None:
    paths = make_outputs(zero_shot_weight=zero_shot_weight)
    register_version(Register(), read_candidate(**paths), paths["evaluation"] / "report.html")
    rows = pd.DataFrame({"path": [str(path) for path in pictures], "sha256": [sha256_file(path) for path in pictures]})
    scored = score_pictures(paths["model"], rows, Path("/"), Runtime())
    expected = scored.scores["capnet"]
    assert np.abs(expected - scored.scores["zero_shot"]).max() > 0.01

    loaded: Any = mlflow.pyfunc.load_model("models:/capnet@challenger")
    found = loaded.predict(pd.DataFrame({"image": [str(path) for path in pictures]}))

    thresholds = read_json(paths["evaluation"] / "thresholds.json")
    names = [item["name"] for item in thresholds["classes"]]
    assert list(found.columns) == ["labels", "scores", "probabilities"]
    served = np.array([[row[name] for name in names] for row in found["scores"]], dtype=np.float32)
    np.testing.assert_allclose(served, expected, atol=1e-6)  # the evaluation sends other batches through the tower
    for row, labels, probabilities in zip(served, found["labels"], found["probabilities"], strict=True):
        assert labels == [name for name, score, item in zip(names, row, thresholds["classes"], strict=True) if score >= item["threshold"]]
        for number, name in enumerate(names):
            logit = math.log(row[number] / (1 - row[number]))
            shifted = logit / thresholds["calibration"]["temperature"] + thresholds["calibration"]["shift"][number]
            assert probabilities[name] == pytest.approx(1 / (1 + math.exp(-shifted)), abs=1e-6)

    state = tmp_path / "state"
    kept = sorted(state.rglob("*"))
    mixed = pd.DataFrame({"image": [_base64(pictures[0]), f"data:image/jpeg;base64,{_base64(pictures[1])}", str(pictures[2])]})
    pd.testing.assert_frame_equal(loaded.predict(mixed), found)
    assert sorted(state.rglob("*")) == kept, "nothing of a served picture is kept"
    assert loaded.predict(mixed.iloc[:0]).empty
    example = loaded.predict(loaded.input_example)
    assert list(example["scores"][0]) == names
    with pytest.raises(Exception, match="image"):
        loaded.predict(pd.DataFrame({"picture": ["a.jpg"]}))


def test_labels_are_those_at_or_above_their_own_threshold() -> None:
    thresholds = {
        "classes": [{"threshold": 0.5}, {"threshold": float(np.float32(0.1))}, {"threshold": 0.9}],
        "calibration": {"temperature": 2.0, "shift": [0.0, 1.0, -1.0]},
    }
    found = table(np.array([[0.5, 0.1, 0.89], [0.4, 0.05, 0.1]], dtype=np.float32), ["a", "b", "c"], thresholds)
    assert found["labels"].tolist() == [["a", "b"], []]
    assert found["probabilities"][0]["a"] == pytest.approx(0.5)
    assert found["probabilities"][0]["b"] == pytest.approx(1 / (1 + math.exp(math.log(9) / 2 - 1)), abs=1e-6)


def test_every_row_that_is_no_picture_is_named(tmp_path: Path, pictures: list[Path]) -> None:
    postscript = base64.b64encode(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n").decode()  # Pillow would start another program
    values = [str(pictures[0]), "missing.jpg", "%%%", "", None, base64.b64encode(b"no picture").decode(), "x" * 5000, str(tmp_path), postscript]
    with pytest.raises(DataError) as caught:
        picture_files(pd.DataFrame({"image": values}), tmp_path)
    assert [problem.where for problem in caught.value.problems] == [f"row {number}" for number in range(1, 9)]
    assert max(len(problem.what) for problem in caught.value.problems) < 120


def test_a_table_without_pictures_or_without_the_column(tmp_path: Path) -> None:
    assert picture_files(pd.DataFrame({"image": []}), tmp_path) == []
    with pytest.raises(DataError, match="no column 'image'"):
        picture_files(pd.DataFrame({"picture": ["a.jpg"]}), tmp_path)


def test_base64_reaches_the_decoder_byte_by_byte(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (9, 7), (1, 2, 3)).save(buffer, format="PNG")
    found = picture_files(pd.DataFrame({"image": [base64.b64encode(buffer.getvalue()).decode()]}), tmp_path)
    assert found[0].read_bytes() == buffer.getvalue()
