"""KFP component validate: a thin shim; what it does is in capnet/steps/validate.py."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Metrics, Output

from components import images


@dsl.component(base_image=images.DATA, install_kfp_package=False)
def validate(
    split: Input[Dataset], data: Input[Dataset], params: dict, validation: Output[Artifact], metrics: Output[Metrics]
) -> None:
    """Check the data with great_expectations; stop on a critical failure.

    Args:
        split: What split wrote.
        data: Where the images are: source.json.
        params: Settings of sections data and validate.
        validation: validation.json and its documents.
        metrics: Number of checks and of failures.
    """
    from capnet.stages import run
    from capnet.tasks import task

    with task(params, data.path) as prepared:
        inputs = {"split": split.path, "data": prepared.root}
        for name, value in run("validate", prepared.params, inputs, outputs={"validation": validation.path}).items():
            metrics.log_metric(name, value)
