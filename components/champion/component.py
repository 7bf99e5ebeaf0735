"""KFP component champion: a thin shim; what it does is in capnet/serving/batch.py."""

from kfp import dsl
from kfp.dsl import Metrics, Model, Output

from components import images


@dsl.component(base_image=images.DATA, install_kfp_package=False)
def champion(model: str, params: dict, champion: Output[Model], metrics: Output[Metrics]) -> None:
    """Download the registered model once for the whole batch.

    Args:
        model: models:/NAME@ALIAS or models:/NAME/VERSION.
        params: Settings of sections data, runtime and register.
        champion: The model with its thresholds and its reference for drift.
        metrics: Number of files.
    """
    from pathlib import Path

    from capnet.serving.batch import fetch_model
    from capnet.tasks import task

    with task(params) as prepared:
        champion.metadata["version"] = fetch_model(prepared.params, model, Path(champion.path))
        metrics.log_metric("files", sum(path.is_file() for path in Path(champion.path).rglob("*")))
