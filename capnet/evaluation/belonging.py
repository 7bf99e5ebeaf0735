"""Whether a document or a model belongs to this split or model: figures of another one say nothing."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from capnet.contracts import fitted_rows_hash, tree_hash
from capnet.errors import ContractError

log = logging.getLogger(__name__)


def require_fitted_rows(config: Mapping[str, Any], table: pd.DataFrame, path: Path) -> None:
    """What a model was fitted on must not be measured as test rows.

    Args:
        config: config.json of the model; of one from before it had ``fitted_rows``, nothing is asked.
        table: rows of split.parquet.
        path: of config.json.

    Raises:
        ContractError: the model was trained or chosen on other rows than the training and validation rows of ``table``.
    """
    own = fitted_rows_hash(table)
    if config.get("fitted_rows", own) != own:
        what = "the model was trained or chosen on other rows than those of this split, and some may be test rows here"
        todo = (
            "run `capnet train` again after `capnet split`; so too where an earlier version of this program, which"
            " described rows in another way, trained on the same ones"
        )
        raise ContractError(what, str(path), todo)


def require_measured(evaluation: Mapping[str, Any], model: Path, path: Path) -> None:
    """Figures and thresholds hold for the model that they were measured with; a warning where nothing says which.

    Args:
        evaluation: evaluation.json, which has ``model_md5`` unless an earlier version wrote it.
        model: folder of the model that is to be registered or used.
        path: of evaluation.json.

    Raises:
        ContractError: another model was evaluated.
    """
    if "model_md5" not in evaluation:
        what = "%s does not say with which model it was measured: if %s was trained later, run `capnet evaluate`"
        log.warning(what, path, model)
    elif evaluation["model_md5"] != tree_hash(model):
        what = f"this was measured with another model than that in {model}"
        raise ContractError(what, str(path), "run `capnet evaluate` after `capnet train`, or `dvc repro`")


def require_split(document: Mapping[str, Any], split: Path, path: Path, todo: str) -> None:
    """What was checked, counted or measured on a split says nothing of another one.

    Args:
        document: with ``split_md5``; of one without it nothing is asked.
        split: folder of the split that is used.
        path: of the document.
        todo: what helps.

    Raises:
        ContractError: the document was made from another split.
    """
    if document.get("split_md5") not in (None, tree_hash(split)):
        raise ContractError(f"this was made from another split than that in {split}", str(path), todo)
