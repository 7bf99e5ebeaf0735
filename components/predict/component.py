"""KFP component predict: a thin shim; what it does is in capnet/serving/batch.py."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Metrics, Model, Output

from components import images


@dsl.component(base_image=images.TRAIN, install_kfp_package=False)
def predict(
    champion: Input[Model],
    data: Input[Dataset],
    params: dict,
    shard: int,
    shards: int,
    accelerators: str,
    predictions: Output[Dataset],
    metrics: Output[Metrics],
) -> None:
    """Label one part of the images with a registered model.

    Args:
        champion: What champion downloaded.
        data: Where the images are: source.json.
        params: Settings of sections data, runtime and register.
        shard: Number of this part.
        shards: Number of parts.
        accelerators: GPUs that the task asked for; with fewer in sight it ends at once.
        predictions: predictions.parquet with labels, scores, and what is wrong with an image that could not be read.
        metrics: Images, and how many could not be read.
    """
    from pathlib import Path

    from capnet.serving.batch import predict_part
    from capnet.tasks import task

    with task(params, data.path, accelerators=int(accelerators)) as prepared:
        model, out = Path(champion.path), Path(predictions.path)
        for name, value in predict_part(
            prepared.params, model, Path(prepared.root), int(shard), int(shards), out
        ).items():
            metrics.log_metric(name, value)
