"""The registered model: pictures in, labels out. MLflow copies this file into the model and runs it there (models-from-code).

The copy needs an installed capnet. Nothing is pickled: the model folder and thresholds.json travel as they are.
"""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pandas as pd
from mlflow.models import ModelSignature, set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from capnet.contracts import read_classes, read_json
from capnet.errors import DataError, Problem

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from capnet.evaluation.tte import Scorer

COLUMN = "image"
LONGEST_PATH = 4096


class CapnetModel(PythonModel):
    """Scores pictures with the test-time views of the model's config.json and marks the labels over their thresholds."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load model and thresholds; raises ContractError where they were made for other classes."""
        from capnet.config import Runtime
        from capnet.evaluation.tte import Scorer

        model, thresholds = Path(context.artifacts["model"]), Path(context.artifacts["thresholds"])
        self._thresholds = read_json(thresholds)
        self._names = read_classes(model / "classes.json", self._thresholds["class_fingerprint"]).names
        self._scorer = Scorer(model, Runtime())

    def predict(self, context: PythonModelContext, model_input: pd.DataFrame, params: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """One row per picture: ``labels`` over their thresholds, ``scores`` and calibrated ``probabilities`` by class name.

        ``model_input`` has a column ``image``: a path, or base64 of the file's bytes. Raises DataError naming every bad row.
        """
        with TemporaryDirectory() as folder:
            return table(_scores(self._scorer, picture_files(model_input, Path(folder))), self._names, self._thresholds)


def _scores(scorer: Scorer, paths: Sequence[Path]) -> np.ndarray:
    """Served scores [picture, class]. Nothing of the pictures is kept: the cache of an evaluation would grow with every request."""
    import numpy as np

    from capnet.data.features import live_features

    if not paths:
        return np.empty((0, len(scorer.loaded.classes)), dtype=np.float32)
    model = scorer.loaded.model
    rows = pd.DataFrame({"path": [str(path) for path in paths], "sha256": ""})  # absolute paths: the root below adds nothing

    def features(pooled: Callable[[Tensor], Tensor]) -> Tensor:
        return live_features(pooled, rows, Path("/"), scorer.look, scorer.machine, scorer.threads, "given").to(scorer.machine.device)

    mixed = model.settings.zero_shot_weight > 0 and not model.tower_is_frozen  # else zero-shot needs no features of its own
    plain = features(lambda images: model.pooled(images, adapted=False)) if mixed else None
    served, _ = model.ensemble(features(model.pooled), scorer.class_features, scorer.loaded.tte.average, plain)
    return served.cpu().numpy()


def table(scores: np.ndarray, names: Sequence[str], thresholds: Mapping[str, Any]) -> pd.DataFrame:
    """Labels, scores and probabilities by class name, from float32 scores [picture, class]."""
    import numpy as np

    from capnet.evaluation.calibration import Calibration, calibrate

    limits = np.array([item["threshold"] for item in thresholds["classes"]], dtype=np.float32)  # [class]
    fitted = thresholds["calibration"]
    probabilities = calibrate(Calibration(fitted["temperature"], np.array(fitted["shift"])), scores)
    return pd.DataFrame(
        {
            "labels": [[name for name, given in zip(names, row, strict=True) if given] for row in scores >= limits],
            "scores": [dict(zip(names, row, strict=True)) for row in scores.tolist()],
            "probabilities": [dict(zip(names, row, strict=True)) for row in probabilities.tolist()],
        }
    )


def picture_files(model_input: pd.DataFrame, folder: Path) -> list[Path]:
    """A readable file per row; base64 is written to ``folder``. Raises DataError naming every row that is neither."""
    if COLUMN not in getattr(model_input, "columns", ()):
        raise DataError(f"no column {COLUMN!r}", "input", f"send a table with a column {COLUMN!r}: paths, or base64 of the files")
    paths: list[Path] = []
    problems = []
    for number, value in enumerate(model_input[COLUMN]):
        content = _decoded(value)
        path = folder / f"row {number}" if content is not None else Path(str(value))
        if content is not None:
            path.write_bytes(content)
        elif not (0 < len(str(value)) <= LONGEST_PATH and path.is_file()):
            problems.append(Problem(f"neither a picture in base64 nor a file: {str(value)[:60]!r}", f"row {number}", "send a path that exists here, or base64"))
        paths.append(path.absolute())
    if problems:
        raise DataError(problems=problems)
    return paths


def _decoded(value: Any) -> bytes | None:
    """The bytes behind base64 (also as a data: URI) that is a raster picture; None for anything else."""
    from PIL import Image, UnidentifiedImageError

    from capnet.data.pictures import FORMATS

    text = str(value)
    text = text.partition(",")[2] if text.startswith("data:") else text
    try:
        content = base64.b64decode(text, validate=True)
        with Image.open(io.BytesIO(content), formats=FORMATS):
            return content
    except (binascii.Error, ValueError, UnidentifiedImageError, OSError):
        return None


def signature() -> ModelSignature:
    """Input: ``image``; output: the labels, and score and probability of every class by name."""
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import Array, Map

    return ModelSignature(
        inputs=Schema([ColSpec(DataType.string, COLUMN)]),
        outputs=Schema([ColSpec(Array(DataType.string), "labels"), ColSpec(Map(DataType.double), "scores"), ColSpec(Map(DataType.double), "probabilities")]),
    )


def input_example() -> pd.DataFrame:
    """A grey square in base64: real input, and nobody's picture."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), (128, 128, 128)).save(buffer, format="PNG")
    return pd.DataFrame({COLUMN: [base64.b64encode(buffer.getvalue()).decode()]})


set_model(CapnetModel())
