"""KFP component train: a thin shim; what it does is in capnet/steps/train.py."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Metrics, Model, Output

from components import images


@dsl.component(base_image=images.TRAIN, install_kfp_package=False)
def train(
    split: Input[Dataset],
    validation: Input[Artifact],
    graph: Input[Artifact],
    data: Input[Dataset],
    params: dict,
    seed: int,
    accelerators: str,
    model: Output[Model],
    metrics: Output[Metrics],
) -> None:
    """Fit CapNet on the training rows.

    Args:
        split: What split wrote.
        validation: What validate wrote.
        graph: What graph wrote.
        data: Where the images are: source.json.
        params: Settings of sections data, backbone, tte, runtime and train.
        seed: Replaces runtime.seed.
        accelerators: GPUs that the task asked for; with fewer in sight it ends at once.
        model: The model folder; it loads alone.
        metrics: Chosen epoch, loss, validation mAP.
    """
    from capnet.stages import run
    from capnet.tasks import task

    with task(params, data.path, seed, int(accelerators)) as prepared:
        inputs = {"split": split.path, "validation": validation.path, "graph": graph.path, "data": prepared.root}
        for name, value in run("train", prepared.params, inputs, outputs={"model": model.path}).items():
            metrics.log_metric(name, value)
