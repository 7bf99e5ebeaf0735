"""Options and run-time parameters, put on the tasks of a pipeline."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from kfp import kubernetes
from kfp.dsl import PipelineTask

from capnet.cluster.names import DATA, GIT_KEYS, LABEL, MLFLOW_KEYS, POD, S3_KEYS, STATE
from pipelines.options import Options

ANY_NODE: dict[str, str] = {}
NO_TOLERATIONS: list[Any] = []
LONG = ("train", "evaluate", "predict")
# Argo counts from the start of the first try, all of them together: what is over gets no other try
NO_END = f"{365 * 24 * 3600}s"


@dataclass(frozen=True)
class Cluster:
    """The run-time parameters about the cluster, under the names that they have in a pipeline's signature."""

    accelerator_type: Any
    accelerator_count: Any
    cpu: Any
    memory: Any
    node_selector: Any
    tolerations: Any
    s3_secret: Any
    mlflow_secret: Any
    git_secret: Any
    state_claim: Any
    data_claim: Any
    pull_secret: Any


CLUSTER = tuple(field.name for field in fields(Cluster))


@dataclass(frozen=True)
class Setup:
    """Puts options and run-time parameters on the tasks of one pipeline, whose stages run in this ``order``. Every
    method but ``on_nodes`` returns its task.
    """

    options: Options
    order: tuple[str, ...]
    cluster: Cluster

    def configured(self, task: PipelineTask) -> PipelineTask:
        """What every task gets: image and its pull secret, cache, time-out, a user that is not root, a writable /tmp,
        the label that network policies select.

        The server, from 2.16 on, adds what else the restricted Pod Security profile asks for; kfp-kubernetes has no
        call for it.
        """
        options = self.options
        # kfp's name for the second task of a component; train on several nodes
        name = task.name.removesuffix("-2").removesuffix("-nodes")
        if options.images is not None:
            task.set_container_image(options.images.of(task.container_spec.image))
        task.set_caching_options(options.cached(name, self.order))
        if options.cluster:
            kubernetes.set_timeout(task, int(3600 * (options.train_hours if name in LONG else options.hours)))
            kubernetes.set_security_context(task, run_as_non_root=True)
            kubernetes.add_pod_label(task, *LABEL)
            if options.pull_secret:
                kubernetes.set_image_pull_secrets(task, [self.cluster.pull_secret])
            kubernetes.empty_dir_mount(task, volume_name="tmp", mount_path="/tmp")
        return task

    def retried(self, task: PipelineTask) -> PipelineTask:
        """Try again after a failure: for tasks that depend on a network or a node, never for the gate."""
        if self.options.retries:
            task.set_retry(
                self.options.retries,
                backoff_duration=f"{self.options.backoff_seconds}s",
                backoff_factor=2.0,
                backoff_max_duration=NO_END,
            )
        return task

    def tried_once(self, task: PipelineTask) -> PipelineTask:
        """Never try again, whatever Argo's defaults are: for the gate. Argo cannot tell a refusal of the gate from
        another failure, because KFP's launcher ends with 1 whatever the task ended with.
        """
        if self.options.cluster:
            task.set_retry(0, backoff_duration="1s")
        return task

    def with_data(self, task: PipelineTask) -> PipelineTask:
        """What a task needs to read the data: credentials, the state volume with its copies, the volume that has it."""
        self.with_secret(task, self.cluster.s3_secret, S3_KEYS)
        self.with_secret(task, self.cluster.git_secret, GIT_KEYS)
        return self.with_state(self.with_volume(task))

    def with_volume(self, task: PipelineTask) -> PipelineTask:
        """The volume that has the images, where they are on one."""
        if self.options.cluster and self.options.data_volume:
            kubernetes.mount_pvc(task, pvc_name=self.cluster.data_claim, mount_path=DATA)
        return task

    def with_state(self, task: PipelineTask) -> PipelineTask:
        """The folder for checkpoints and copies: a volume that outlives the pod, or one that goes with it."""
        if self.options.cluster and self.options.state_volume:
            kubernetes.mount_pvc(task, pvc_name=self.cluster.state_claim, mount_path=STATE)
        elif self.options.cluster:
            kubernetes.empty_dir_mount(task, volume_name="state", mount_path=STATE)
        return task

    def with_curves(self, task: PipelineTask) -> PipelineTask:
        """Credentials of the MLflow server, which shows the curves while the task works."""
        return self.with_secret(task, self.cluster.mlflow_secret, MLFLOW_KEYS)

    def with_store(self, task: PipelineTask) -> PipelineTask:
        """Credentials of the MLflow server and of the bucket with its artifacts."""
        return self.with_secret(self.with_curves(task), self.cluster.s3_secret, S3_KEYS)

    def with_secret(self, task: PipelineTask, name: Any, keys: tuple[str, ...]) -> PipelineTask:
        """Keys of a secret as environment variables of the same names; what the secret lacks stays unset."""
        if self.options.cluster:
            kubernetes.use_secret_as_env(
                task, secret_name=name, secret_key_to_env={key: key for key in keys}, optional=True
            )
        return task

    def heavy(self, task: PipelineTask) -> PipelineTask:
        """Train, evaluate and predict in a pod of their own: its images, and its resources: GPU, CPU, memory, nodes,
        shared memory for loader processes.
        """
        self.retried(self.configured(task))
        if self.options.cluster:
            cluster = self.cluster
            # KFP's driver takes text only for these, and no number. kfp hands only declared channels down into an exit
            # handler or a loop, and declares none here
            task.register_pipeline_channels(
                [cluster.accelerator_type, cluster.accelerator_count, cluster.cpu, cluster.memory]
            )
            task.set_accelerator_type(cluster.accelerator_type).set_accelerator_limit(cluster.accelerator_count)
            task.set_cpu_request(cluster.cpu).set_memory_request(cluster.memory).set_memory_limit(cluster.memory)
            kubernetes.add_node_selector_json(task, cluster.node_selector)
            kubernetes.add_toleration_json(task, cluster.tolerations)
            kubernetes.empty_dir_mount(
                task, volume_name="shm", mount_path="/dev/shm", medium="Memory", size_limit=self.options.shared_memory
            )
        return self.with_data(task)

    def light(self, task: PipelineTask) -> PipelineTask:
        """A task that starts pods and waits for them: few resources, the volume that it shares with them, and what it
        must know of its own pod.
        """
        self.retried(self.configured(task))
        task.set_cpu_request("100m").set_memory_request("512Mi").set_memory_limit("2Gi")
        for name, field in POD.items():
            kubernetes.use_field_path_as_env(task, name, field)
        return self.with_state(task)

    def on_nodes(self) -> dict[str, Any]:
        """What a task that trains on several nodes asks for each of them."""
        options, cluster = self.options, self.cluster
        return {
            **{name: getattr(cluster, name) for name in CLUSTER},
            "data_claim": cluster.data_claim if options.data_volume else "",
            "pull_secret": cluster.pull_secret if options.pull_secret else "",
            "nodes": options.nodes,
            "processes_per_node": options.processes_per_node,
            "runtime": options.training_runtime,
            "image": options.images.train if options.images else "",
            "shared_memory": options.shared_memory,
            "hours": float(options.train_hours),
            "start_minutes": float(options.start_minutes),
        }
