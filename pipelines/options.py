"""What is fixed when a pipeline is compiled, because KFP takes no parameter for it."""

from __future__ import annotations

from dataclasses import dataclass

from capnet.cluster.names import DATA, RUNTIME
from capnet.errors import ConfigError, Problem
from components.images import Images

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
    train_hours: float = 24.0  # the same for training, evaluation and prediction
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
