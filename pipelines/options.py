"""What is fixed when a pipeline is compiled, because KFP takes no parameter for it, and how it is put on a task."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from kfp import kubernetes
from kfp.dsl import PipelineTask

from capnet.cluster.names import DATA, GIT_KEYS, LABEL, MLFLOW_KEYS, POD, RUNTIME, S3_KEYS, STATE
from capnet.errors import ConfigError, Problem
from components.images import Images

ANY_NODE: dict[str, str] = {}
NO_TOLERATIONS: list[Any] = []
LONG = ("train", "evaluate", "predict")
# Argo counts from the start of the first try, all of them together: what is over gets no other try
NO_END = f"{365 * 24 * 3600}s"
NEVER_CACHED = ("plan", "champion", "register", "outcome")  # the store may have changed; plan has no result


@dataclass(frozen=True)
class Options:
    """Options of one compilation. Without ``cluster`` nothing of Kubernetes is asked for; without ``images`` the tasks
    run in this Python.
    """

    images: Images | None = None
    cluster: bool = True
    state_volume: bool = True
    data_volume: bool = False
    further_seeds: bool = False
    shared_memory: str = "2Gi"
    retries: int = 2
    backoff_seconds: int = 30
    hours: float = 2.0  # longest time of a task
    train_hours: float = 24.0  # the same for the tasks in LONG
    cache: bool = True
    no_cache_from: str = ""
    nodes: int = 1  # more than one makes train a task that starts a TrainJob
    processes_per_node: int = 0
    training_runtime: str = RUNTIME
    start_minutes: float = 30.0
    pull_secret: bool = False  # whether tasks name the secret of a private registry

    def __post_init__(self) -> None:
        problems = []
        if self.nodes > 1 and not self.cluster:
            todo = (
                "leave it out; on one machine several processes train with `torchrun --nproc-per-node 2 -m capnet.cli"
                " train`"
            )
            problems.append(Problem(f"nodes = {self.nodes}, and this machine is one", "--nodes, --local", todo))
        if self.nodes > 1 and not self.state_volume:
            what, todo = f"nodes = {self.nodes} without a state volume", "several nodes find each other's files on it"
            problems.append(Problem(what, "--nodes, --no-state-volume", todo))
        if not all(1 <= 3600 * hours <= 3600 * 24 * 30 for hours in (self.hours, self.train_hours)):
            what = f"time-outs of {self.hours} and {self.train_hours} hours"
            problems.append(Problem(what, "options", "allowed is more than 0 (one second), up to 720"))
        if not 0 < self.start_minutes <= 60 * 24 * 30:
            what = f"start-minutes = {self.start_minutes:g}"
            problems.append(Problem(what, "options", "allowed is more than 0, up to 43200"))
        if problems:
            raise ConfigError(problems=problems)

    @property
    def volume(self) -> str:
        """The folder in which every task sees the same files: a mounted volume; the whole file system where tasks are
        processes of this machine; "" for none.
        """
        if self.data_volume:
            return DATA
        return "" if self.cluster or self.images else "/"

    def at_a_time(self, most: int) -> int:
        """Turns of a loop that run at a time: here one, because they share this machine."""
        return most if self.cluster else 1

    def cached(self, name: str, order: tuple[str, ...]) -> bool:
        """Whether KFP may take a task's result from an earlier run."""
        if self.no_cache_from and self.no_cache_from not in order:
            raise ConfigError(
                f"there is no stage {self.no_cache_from!r}", "--no-cache-from", f"choose one of: {', '.join(order)}"
            )
        later = bool(self.no_cache_from) and name in order and order.index(name) >= order.index(self.no_cache_from)
        return self.cache and name not in NEVER_CACHED and not later


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

    def with_images(self, task: PipelineTask) -> PipelineTask:
        """What a task needs to read images: credentials, the state volume with their copies, the volume that has
        them.
        """
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
        return self.with_images(task)

    def waiting(self, task: PipelineTask) -> PipelineTask:
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
