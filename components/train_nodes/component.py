"""KFP component train_nodes: a thin shim; what it does is in capnet/cluster/trainjob_run.py, and on each node in
capnet/steps/train.py.
"""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Metrics, Model, Output

from components import images


@dsl.component(base_image=images.TRAIN, install_kfp_package=False)
def train_nodes(
    split: Input[Dataset],
    validation: Input[Artifact],
    graph: Input[Artifact],
    data: Input[Dataset],
    params: dict,
    seed: int,
    nodes: int,
    processes_per_node: int,
    image: str,
    runtime: str,
    accelerator_type: str,
    accelerator_count: str,
    cpu: str,
    memory: str,
    shared_memory: str,
    node_selector: dict,
    tolerations: list,
    s3_secret: str,
    mlflow_secret: str,
    git_secret: str,
    state_claim: str,
    data_claim: str,
    pull_secret: str,
    hours: float,
    start_minutes: float,
    model: Output[Model],
    metrics: Output[Metrics],
) -> None:
    """Fit CapNet on the training rows, on several nodes.

    Args:
        split: What split wrote.
        validation: What validate wrote.
        graph: What graph wrote.
        data: Where the images are: source.json.
        params: Settings of sections data, backbone, tte, runtime and train.
        seed: Replaces runtime.seed.
        nodes: Pods that train together.
        processes_per_node: Processes of each; 0 is one a GPU, and one without any.
        image: What they run: the image of this task, by digest.
        runtime: Training runtime of Kubeflow Trainer; TrainingRuntime/NAME is one of the namespace.
        accelerator_type: Resource name of the GPU.
        accelerator_count: GPUs of each; with fewer in sight training ends at once.
        cpu: CPUs that each asks for.
        memory: Memory that each gets.
        shared_memory: Size of /dev/shm of each.
        node_selector: Labels of their nodes.
        tolerations: Their tolerations.
        s3_secret: Secret with the bucket's credentials.
        mlflow_secret: Secret with the MLflow server's address and credentials.
        git_secret: Secret with git's credentials.
        state_claim: Claim of the state volume, which must be ReadWriteMany.
        data_claim: Claim of the volume with images; empty where there is none.
        pull_secret: Secret of a private registry; empty where there is none.
        hours: Longest time of the training.
        start_minutes: Longest wait for the pods to start.
        model: The model folder; it loads alone.
        metrics: Chosen epoch, loss, validation mAP.
    """
    from capnet.cluster.trainjob_run import train_on_nodes
    from capnet.cluster.trainjob_spec import Nodes
    from capnet.tasks import task

    spec = {name: value for name, value in locals().items() if name in Nodes.model_fields}
    with task(params, data.path, seed) as prepared:
        inputs = {"split": split.path, "validation": validation.path, "graph": graph.path, "data": prepared.root}
        for name, value in train_on_nodes(prepared.params, inputs, {"model": model.path}, spec, data.path).items():
            metrics.log_metric(name, value)
