"""KFP component split: a thin shim; what it does is in capnet/steps/split.py."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Metrics, Output

from components import images


@dsl.component(base_image=images.DATA, install_kfp_package=False)
def split(manifest: Input[Dataset], params: dict, split: Output[Dataset], metrics: Output[Metrics]) -> None:
    """Divide the rows into train, val and test; draw a long tail on request.

    Args:
        manifest: What ingest wrote.
        params: Settings of section split.
        split: split.parquet and classes.json with counts and buckets.
        metrics: Rows of each split.
    """
    from capnet.stages import run
    from capnet.tasks import task

    with task(params) as prepared:
        for name, value in run(
            "split", prepared.params, inputs={"manifest": manifest.path}, outputs={"split": split.path}
        ).items():
            metrics.log_metric(name, value)
