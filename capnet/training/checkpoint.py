"""Training state on disk: trained tensors, optimiser moments, history; safetensors, written beside and renamed."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from capnet.contracts import read_tensors, write_tensors
from capnet.errors import CapnetError
from capnet.training.distributed import ProcessGroup

MOMENTS = ("exp_avg", "exp_avg_sq", "step")


@dataclass
class Progress:
    """How far a training run has come."""

    epoch: int = 0  # epochs finished
    step: int = 0
    losses: list[float] = field(default_factory=list)  # of the steps of the epoch at work
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    best_value: float = float("-inf")
    best: dict[str, Tensor] = field(default_factory=dict)


def save(path: Path, progress: Progress, parameters: dict[str, Tensor], optimiser: torch.optim.Optimizer) -> None:
    """Write everything that the next step depends on."""
    tensors = {f"now/{name}": tensor.detach() for name, tensor in parameters.items()}
    tensors |= {f"best/{name}": tensor for name, tensor in progress.best.items()}
    for name, parameter in parameters.items():
        tensors |= {
            f"{key}/{name}": optimiser.state[parameter][key] for key in MOMENTS if key in optimiser.state[parameter]
        }
    metadata = {
        "epoch": progress.epoch,
        "step": progress.step,
        "losses": progress.losses,
        "history": progress.history,
        "best_epoch": progress.best_epoch,
    }
    if progress.best:
        metadata["best_value"] = progress.best_value
    write_tensors(path, tensors, metadata)


def load(path: Path, parameters: dict[str, Tensor], optimiser: torch.optim.Optimizer) -> Progress:
    """Put a saved state back into ``parameters`` and ``optimiser``; a fresh Progress where there is none."""
    if not path.is_file():
        return Progress()
    tensors, metadata = read_tensors(path)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[f"now/{name}"])
            state: dict[str, Any] = {key: tensors[f"{key}/{name}"] for key in MOMENTS if f"{key}/{name}" in tensors}
            if state:
                optimiser.state[parameter] = {
                    key: value if key == "step" else value.to(parameter.device) for key, value in state.items()
                }
    best = {name.removeprefix("best/"): tensor for name, tensor in tensors.items() if name.startswith("best/")}
    known = {
        name: metadata[name]
        for name in ("epoch", "step", "losses", "history", "best_epoch", "best_value")
        if name in metadata
    }
    return Progress(**known, best=best)


def share(path: Path, group: ProcessGroup) -> None:
    """Give every process the state that the first one finds at ``path``; on other machines there is none, or an old
    one.
    """
    if group.size == 1:
        return
    content = group.broadcast(path.read_bytes() if group.is_main_process and path.is_file() else b"")
    if group.is_main_process:
        return
    path.unlink(missing_ok=True)
    if content:
        path.write_bytes(content)


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """One writer per training run; the lock goes with its process, however that ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise CapnetError(
                f"the same training is already running (process {file.read().strip() or '?'})",
                str(folder),
                "wait for it, or end that process",
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
