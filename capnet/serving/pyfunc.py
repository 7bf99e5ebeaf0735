"""The registered model: images in, decisions out. MLflow copies this file into the model and runs it there
(models-from-code).

The copy needs an installed capnet. Nothing is pickled: the model folder and thresholds.json travel as they are.
"""

from __future__ import annotations

import base64
import io
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import BoundedSemaphore
from typing import Any

import numpy as np
import pandas as pd
import yaml
from mlflow import MlflowClient, get_registry_uri, get_tracking_uri
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature, set_model
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, TEMPORARILY_UNAVAILABLE
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.types import schema as untyped
from PIL import Image

from capnet.errors import DataError, GateError, one_line
from capnet.promotion.champion import check_champion, check_files, identity
from capnet.serving.engine import DECISIONS, load_served
from capnet.serving.request import COLUMN, Clock, TooSlow, read_limits, request_files
from capnet.tracking.database import sqlite_file
from capnet.tracking.store import first_contact

META = "registered_model_meta"  # written by MLflow before 3.18 into the folder of a model that came from the registry
UNCHECKED = "CAPNET_UNCHECKED_CHAMPION"
TOGETHER = 8  # images between two looks at the clock

logger = logging.getLogger(__name__)


class CapnetModel(PythonModel):
    """Scores images with the test-time views of the model's config.json and decides by its thresholds."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the model; MLflow calls it once.

        Args:
            context: with the artifacts model and thresholds.

        Raises:
            GateError: the gate refuses this champion.
            ContractError: the files are not those that were registered, or the thresholds are those of other classes or
                views.
            ConfigError: the environment sets a limit of requests to a value that is not allowed.
        """
        model = Path(context.artifacts["model"])
        self._limits = read_limits()
        self._turns = BoundedSemaphore(self._limits.at_once)  # each request has its memory
        check_gate(model.parents[1])
        self._served = load_served(model, Path(context.artifacts["thresholds"]))

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: Mapping[str, Any] | None = None
    ) -> pd.DataFrame:
        """Score the images of a request.

        Args:
            context: not read.
            model_input: has a column ``image``: bytes or base64, and paths where CAPNET_SERVE_ROOT is set.
            params: ``decided_only`` leaves out what is not decided.

        Returns:
            One row per image (its number in the input) and class: score, calibrated probability, threshold, decision.

        Raises:
            MlflowException: names every bad row. A server answers with status 400, with 503 where the time was over,
                and with 500 and no details where the fault is not the request's.
        """
        clock = Clock(self._limits)
        try:
            with clock.turn(self._turns), TemporaryDirectory() as folder:
                table = self._served.decisions(self._scores(request_files(model_input, Path(folder), clock), clock))
        except TooSlow as error:
            logger.warning("a request had too little time: %s", one_line(str(error)))
            raise MlflowException(str(error), TEMPORARILY_UNAVAILABLE) from error
        except DataError as error:
            logger.warning("a request was refused: %s", one_line(str(error)))
            raise MlflowException.invalid_parameter_value(str(error)) from error
        except Exception as error:
            logger.exception("a request could not be scored")
            what = "there is not enough memory" if isinstance(error, MemoryError) else "the model failed"
            raise MlflowException(f"{what}: the server's log has the reason", INTERNAL_ERROR) from error
        return table[table["decision"]].reset_index(drop=True) if (params or {}).get("decided_only") else table

    def _scores(self, paths: list[Path], clock: Clock) -> np.ndarray:
        """float32 [image, class], a few images at a time, so that a request ends when its time is over."""
        parts = []
        for start in range(0, max(len(paths), 1), TOGETHER):
            clock.check()
            parts.append(self._served.scores(paths[start : start + TOGETHER]))
        return np.concatenate(parts)


def check_gate(folder: Path) -> None:
    """Ask the registry that the model came from whether this version may serve: a red champion is refused however it
    is loaded.

    A model is also refused where the registry does not answer, unless the variable CAPNET_UNCHECKED_CHAMPION gives a
    reason: that is for a place without a registry, such as an image that was built from one. It does not overrule a
    registry that answers.

    Args:
        folder: of the model as MLflow wrote it.

    Raises:
        GateError: the gate refuses the version, or nobody answers.
    """
    meta = read_yaml(folder / META)
    name, version = meta.get("model_name"), str(meta.get("model_version"))
    unchecked = bool(os.environ.get(UNCHECKED, "").strip())
    if not name:
        _check_by_id(folder)
        return
    try:
        database = sqlite_file(get_registry_uri())
        if database and not database.is_file():  # asking would make an empty store here
            raise FileNotFoundError(f"there is no {database}")
        with first_contact():
            client = MlflowClient()
            registered = client.get_model_version(name, version)
    except Exception as error:  # of any store
        if unchecked:
            return
        raise GateError(
            f"cannot ask the registry whether {identity(name, version)} may serve:"
            f" {' '.join(str(error).split())[:200]}",
            str(folder),
            f"set MLFLOW_TRACKING_URI to the registry that the model came from; where there is none, set {UNCHECKED} to"
            " a reason",
        ) from error
    check_champion(registered, client)
    check_files(registered, folder / "artifacts")


def _check_by_id(folder: Path) -> None:
    """Refuse a model whose folder does not say of which version it is, because it was named by its run or its path, or
    because MLflow is 3.18 or newer, where the registry knows it as a champion that may not serve, or has other files.

    Without a registry that answers there is nothing to ask: such a model is no version.
    """
    model_id, database = read_yaml(folder / "MLmodel").get("model_id"), sqlite_file(get_tracking_uri())
    if not model_id or (database and not database.is_file()):
        return  # asking would make an empty store here
    client, versions = MlflowClient(), []
    with suppress(Exception), first_contact():
        run_id = client.get_logged_model(model_id).source_run_id
        versions = [
            client.get_model_version(item.name, item.version)
            for item in client.search_model_versions(f"run_id = '{run_id}'")
        ]
    for version in versions:
        own = version.source == f"models:/{model_id}"
        # a copy names a version
        if own or not str(version.source).startswith("models:/m-"):
            check_champion(version, client)
        if own:
            check_files(version, folder / "artifacts")


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file of the folder of a model; {} where there is none."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        return {}


def signature() -> ModelSignature:
    """Input: ``image`` (bytes or text); output: a row per image and class."""
    anything: Any = untyped.AnyType  # one column for bytes and text: DataType.string would refuse bytes
    kinds = {"picture": DataType.long, "class": DataType.string, "decision": DataType.boolean}
    return ModelSignature(
        inputs=Schema([ColSpec(anything(), COLUMN)]),
        outputs=Schema([ColSpec(kinds.get(name, DataType.double), name) for name in DECISIONS]),
        params=ParamSchema([ParamSpec("decided_only", DataType.boolean, False)]),
    )


def input_example() -> pd.DataFrame:
    """A grey square in base64: real input, and nobody's image."""
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), (128, 128, 128)).save(buffer, format="PNG")
    return pd.DataFrame({COLUMN: [base64.b64encode(buffer.getvalue()).decode()]})


set_model(CapnetModel())
