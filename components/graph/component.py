"""KFP component graph: a thin shim; what it does is in capnet/steps/graph.py."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Metrics, Output

from components import images


@dsl.component(base_image=images.TRAIN, install_kfp_package=False)
def graph(
    split: Input[Dataset], validation: Input[Artifact], params: dict, graph: Output[Artifact], metrics: Output[Metrics]
) -> None:
    """Build the label-correlation graph from the text tower.

    Args:
        split: What split wrote.
        validation: What validate wrote.
        params: Settings of sections backbone, runtime and graph.
        graph: graph.safetensors.
        metrics: Classes and neighbours.
    """
    from capnet.stages import run
    from capnet.tasks import task

    with task(params) as prepared:
        inputs = {"split": split.path, "validation": validation.path}
        for name, value in run("graph", prepared.params, inputs, outputs={"graph": graph.path}).items():
            metrics.log_metric(name, value)
