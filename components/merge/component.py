"""KFP component merge: a thin shim; what it does is in capnet/serving/batch.py."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Metrics, Model, Output

from components import images


@dsl.component(base_image=images.TRAIN, install_kfp_package=False)
def merge(
    champion: Input[Model], parts: Input[list[Dataset]], predictions: Output[Dataset], metrics: Output[Metrics]
) -> None:
    """Put the parts together and compare them with what the model was chosen on.

    Args:
        champion: What champion downloaded.
        parts: What predict wrote, part by part.
        predictions: predictions.parquet with every image, and drift.json.
        metrics: Images, how many could not be read, classes that drifted.
    """
    from pathlib import Path

    from capnet.serving.batch import merge_parts
    from capnet.tasks import task

    with task({}):
        for name, value in merge_parts(
            Path(champion.path), [Path(part.path) for part in parts], Path(predictions.path)
        ).items():
            metrics.log_metric(name, value)
