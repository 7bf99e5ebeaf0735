"""KFP component register: a thin shim; what it does is in capnet/steps/register.py."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Metrics, Model, Output

from components import images


@dsl.component(base_image=images.TRAIN, install_kfp_package=False)
def register(
    split: Input[Dataset],
    validation: Input[Artifact],
    model: Input[Model],
    evaluation: Input[Dataset],
    params: dict,
    registration: Output[Artifact],
    metrics: Output[Metrics],
) -> None:
    """Register the model in MLflow as challenger.

    Args:
        split: What split wrote.
        validation: What validate wrote.
        model: What train wrote for the first seed.
        evaluation: What evaluate wrote for the first seed.
        params: Settings of sections data and register.
        registration: registration.json.
        metrics: Version number and headline figures.
    """
    from capnet.stages import run
    from capnet.tasks import task

    with task(params) as prepared:
        inputs = {
            "split": split.path,
            "validation": validation.path,
            "model": model.path,
            "evaluation": evaluation.path,
        }
        for name, value in run(
            "register", prepared.params, inputs, outputs={"registration": registration.path + "/registration.json"}
        ).items():
            metrics.log_metric(name, value)
