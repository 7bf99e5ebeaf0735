"""Stage register: log one MLflow run and register the model as one version under the alias."""

from __future__ import annotations

import logging
from pathlib import Path

from capnet.config import Params
from capnet.contracts import SCHEMA, write_json
from capnet.contracts.dvc_file import dvc_output
from capnet.errors import Problem
from capnet.registry.candidate import read_candidate
from capnet.registry.data_card import data_licence
from capnet.registry.register import register_version
from capnet.tracking.database import goes_with_the_experiment, sqlite_file
from capnet.tracking.store import tracking_uri

log = logging.getLogger(__name__)


def register(params: Params, inputs: dict[str, Path], outputs: dict[str, Path]) -> dict[str, float]:
    """Write registration.json, without version number and run id, which differ between stores.

    Args:
        params: all settings.
        inputs: folders split, validation, model and evaluation.
        outputs: file registration.

    Returns:
        The version's number, and the headline figures as fractions of 1.

    Raises:
        ContractError: the folders do not belong together, or are replaced meanwhile.
        StoreError: the store does not take it.
    """
    root = Path(params.data.root)  # what lies elsewhere, such as the demo, says nothing of these images
    settings = params.register_.model_copy(update={"data_licence": data_licence(params.register_.data_licence, root)})
    candidate = read_candidate(inputs["split"], inputs["validation"], inputs["model"], inputs["evaluation"])
    data_md5 = dvc_output(Path(f"{root}.dvc")).get("md5", "")
    registered = register_version(settings, candidate, inputs["evaluation"] / "report.html", data_md5)
    record = {
        "schema": SCHEMA,
        "name": settings.name,
        "alias": settings.alias,
        "content_hash": candidate.content_hash,
        "metrics": candidate.headline,
    }
    write_json(outputs["registration"], record)
    database = sqlite_file(tracking_uri(settings))
    if database is not None and goes_with_the_experiment(database):
        what = "this version goes with the experiment's temporary folder, which DVC deletes"
        todo = (
            "`capnet register --check` after `dvc exp apply` registers it again; to keep versions of further"
            " experiments, set MLFLOW_TRACKING_URI=sqlite:///$PWD/mlflow.db first"
        )
        log.warning("%s", Problem(what, str(database.resolve()), todo))
    return {"version": float(registered.version), **candidate.headline}
