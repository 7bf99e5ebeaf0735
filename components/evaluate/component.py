"""KFP component evaluate: a thin shim; what it does is in capnet/steps/evaluate.py."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Metrics, Model, Output

from components import images


@dsl.component(base_image=images.TRAIN, install_kfp_package=False)
def evaluate(
    split: Input[Dataset],
    model: Input[Model],
    data: Input[Dataset],
    params: dict,
    seed: int,
    accelerators: str,
    evaluation: Output[Dataset],
    metrics: Output[Metrics],
) -> list:
    """Measure CapNet, zero-shot and a linear probe on the test rows; choose thresholds; write the report.

    Args:
        split: What split wrote.
        model: What train wrote.
        data: Where the images are: source.json.
        params: Settings of sections data, runtime and evaluate.
        seed: What the model was trained with; it stands with the figures.
        accelerators: GPUs that the task asked for; with fewer in sight it ends at once.
        evaluation: Predictions, metrics, thresholds and the report.
        metrics: mAP of all, head, medium and tail classes, of zero-shot and of the linear probe, as fractions of 1.

    Returns:
        Seed and the same figures as the only item of a list, for the report over several seeds.
    """
    from capnet.stages import run
    from capnet.tasks import task

    with task(params, data.path, accelerators=int(accelerators)) as prepared:
        inputs = {"split": split.path, "model": model.path, "data": prepared.root}
        figures = run("evaluate", prepared.params, inputs, outputs={"evaluation": evaluation.path})
        for name, value in figures.items():
            metrics.log_metric(name, value)
    return [{"seed": seed, **figures}]
