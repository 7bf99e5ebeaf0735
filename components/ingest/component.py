"""KFP component ingest: a thin shim; what it does is in capnet/steps/ingest.py."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Metrics, Output

from components import images


@dsl.component(base_image=images.DATA, install_kfp_package=False)
def ingest(data: Input[Dataset], params: dict, manifest: Output[Dataset], metrics: Output[Metrics]) -> None:
    """Read native annotations into one table.

    Args:
        data: Where the images are: source.json.
        params: Settings of sections data and ingest.
        manifest: manifest.parquet and classes.json.
        metrics: Images, classes, images without a label.
    """
    from capnet.stages import run
    from capnet.tasks import task

    with task(params, data.path) as prepared:
        for name, value in run(
            "ingest", prepared.params, inputs={"data": prepared.root}, outputs={"manifest": manifest.path}
        ).items():
            metrics.log_metric(name, value)
