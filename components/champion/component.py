"""KFP component champion: a thin shim; what it does is in capnet/serving/batch.py."""

from kfp import dsl
from kfp.dsl import Metrics, Model, Output

from components import images


@dsl.component(base_image=images.DATA, install_kfp_package=False)
def champion(
    model: str,
    params: dict,
    shards: list,
    shard_count: int,
    champion: Output[Model],
    metrics: Output[Metrics],
) -> None:
    """Download the registered model once for the whole batch.

    Args:
        model: models:/NAME@ALIAS or models:/NAME/VERSION.
        params: Settings of sections data, runtime and register.
        shards: Numbers of all parts, one turn of the loop each; others than 0, 1, ... are refused.
        shard_count: How many parts there are.
        champion: The model with its thresholds and its reference for drift.
        metrics: Number of files.
    """
    from pathlib import Path

    from capnet.serving.batch import fetch_model
    from capnet.tasks import require_turns, task

    with task(params) as prepared:
        require_turns("shards", shards, range(int(shard_count)))
        champion.metadata["version"] = fetch_model(prepared.params, model, Path(champion.path))
        metrics.log_metric("files", sum(path.is_file() for path in Path(champion.path).rglob("*")))
