"""The model that a command works with: the champion, another registered version, or that of a folder of outputs."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from capnet.errors import ContractError

if TYPE_CHECKING:
    from capnet.config import Params
    from capnet.serving.engine import Served

logger = logging.getLogger(__name__)


@contextmanager
def open_model(address: str, params: Params) -> Iterator[tuple[Served, str, Mapping[str, Any]]]:
    """The loaded model, by default the champion, its name for messages, and its reference for drift ({} where it has
    none).
    """
    from capnet.progress import waiting

    with waiting("loading libraries"):
        from capnet.contracts import read_json
        from capnet.contracts.stage_json import read_evaluation
        from capnet.evaluation.belonging import require_measured
        from capnet.serving.engine import load_served
        from capnet.serving.fetch import fetch_version

    address = address or f"models:/{params.register_.name}@champion"
    if not address.startswith("models:/"):
        folder = Path(address)
        if not (folder / "model" / "config.json").is_file():
            todo = "name a folder of outputs in which a model was trained; a registered one is models:/NAME@champion"
            if (folder / "config.json").is_file():
                todo = f"name the folder that it is in, which has its thresholds, too: {folder.parent}"
            raise ContractError("no model is in this folder", address, todo)
        evaluation = folder / "evaluation"
        if (evaluation / "evaluation.json").is_file():
            require_measured(read_evaluation(evaluation), folder / "model", evaluation / "evaluation.json")
        elif (evaluation / "thresholds.json").is_file():
            what = "nothing says that %s are those of this model: evaluation.json, which would, is not beside them"
            logger.warning(what, evaluation / "thresholds.json")
        yield load_served(folder / "model", evaluation / "thresholds.json", params.runtime), str(folder), {}
        return
    with TemporaryDirectory() as temporary:
        artifacts, name = fetch_version(params.register_, address, Path(temporary))
        reference = read_json(artifacts / "reference.json") if (artifacts / "reference.json").is_file() else {}
        yield load_served(artifacts / "model", artifacts / "thresholds.json", params.runtime), name, reference
