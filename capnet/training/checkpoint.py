"""Training state on disk: trained tensors, the optimiser's state, history. Safetensors, written to a temporary name and
renamed.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from capnet.contracts import check_tensors, read_tensors, write_tensors
from capnet.contracts.files import host
from capnet.errors import CapnetError, ContractError
from capnet.training.distributed import ProcessGroup

SAVE_EVERY_SECONDS = 2.0  # between two checkpoints
# and that many times as long as the last one took: where a volume is slow, saving still costs 3 % at most
SAVE_PAUSE = 30.0
ENDING = 60.0  # seconds that a pod takes to end, at most, after the next try has started

logger = logging.getLogger(__name__)


@dataclass
class Progress:
    """How far a training run has come."""

    epoch: int = 0  # finished epochs
    step: int = 0
    losses: list[float] = field(default_factory=list)  # of the steps of the current epoch
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    best_value: float = float("-inf")
    best: dict[str, Tensor] = field(default_factory=dict)


class Checkpoint:
    """The checkpoint of one training run; only the main process reads and writes it.

    Args:
        path: of the file.
        parameters: of the model, by name, and other tensors that the next step depends on.
        optimiser: whose state belongs to them.
        process_group: the processes that train together.
    """

    def __init__(
        self,
        path: Path,
        parameters: Mapping[str, Tensor],
        optimiser: torch.optim.Optimizer,
        process_group: ProcessGroup,
    ) -> None:
        self.path, self.parameters, self.optimiser, self.process_group = path, parameters, optimiser, process_group
        self.saved, self.pause = time.monotonic(), SAVE_EVERY_SECONDS

    def load(self) -> Progress:
        """Put the saved state back into parameters and optimiser, in every process.

        Returns:
            How far the saved run had come; a new Progress where there is no checkpoint, or a damaged one.
        """
        state = self.process_group.broadcast(self._read())
        if state is None:
            return Progress()
        tensors, metadata = state
        parts = _by_prefix(tensors)
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(parts["model"][name])
        moments = {int(index): named for index, named in _by_prefix(parts["optimiser"]).items()}
        self.optimiser.load_state_dict(self.optimiser.state_dict() | {"state": moments})
        return Progress(**metadata, best=parts["best"])

    def _read(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        if not (self.process_group.is_main_process and self.path.is_file()):
            return None
        with suppress(ContractError):
            tensors, metadata = read_tensors(self.path)
            check_tensors(
                tensors, {f"model/{name}": tuple(own.shape) for name, own in self.parameters.items()}, self.path
            )
            if set(metadata) == {item.name for item in fields(Progress)} - {"best"}:
                return tensors, metadata
        logger.warning("%s is damaged, so training starts from the beginning", self.path)
        return None

    def save(self, progress: Progress) -> None:
        """Write everything that the next step depends on."""
        if not self.process_group.is_main_process:
            return
        started = time.monotonic()
        tensors = {f"model/{name}": tensor for name, tensor in self.parameters.items()}
        tensors |= {f"best/{name}": tensor for name, tensor in progress.best.items()}
        for index, moments in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser/{index}/{name}": tensor for name, tensor in moments.items()}
        write_tensors(self.path, tensors, {key: value for key, value in vars(progress).items() if key != "best"})
        self.saved = time.monotonic()
        self.pause = max(SAVE_EVERY_SECONDS, SAVE_PAUSE * (self.saved - started))

    def save_if_due(self, progress: Progress) -> None:
        """Write, unless the last checkpoint is only seconds old."""
        if time.monotonic() - self.saved > self.pause:
            self.save(progress)


def _by_prefix(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Tensors of the names PREFIX/NAME, by prefix and name; {} for a prefix that none has."""
    parts: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for key, tensor in tensors.items():
        prefix, _, name = key.partition("/")
        parts[prefix][name] = tensor
    return parts


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """One writer per training run; the lock goes with its process, however that ends. A process of another machine is
    waited for: a pod that was deleted may still be ending when the next try starts.

    Raises:
        CapnetError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    is_waiting = False
    with open(folder / "lock", "a+") as file:
        while not _taken(file):
            file.seek(0)
            process, _, machine = file.read().strip().partition(" ")
            owner = f"process {process or '?'}{f' on {machine}' if machine else ''}"
            if machine in ("", host()) or time.monotonic() - start > ENDING:
                what = f"the same training is already running ({owner})"
                raise CapnetError(what, str(folder), "wait for it, or end that process")
            if not is_waiting:
                logger.info("the same training is still running (%s): waiting up to %g s for its end", owner, ENDING)
                is_waiting = True
            time.sleep(1.0)
        file.truncate(0)
        file.write(f"{os.getpid()} {host()}")
        file.flush()
        yield


def _taken(file: IO[str]) -> bool:
    """Take the lock on an open file; False where another process holds it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
