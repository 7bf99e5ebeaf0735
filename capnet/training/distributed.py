"""Several processes train one model: `torchrun --nproc-per-node 2 -m capnet.cli train`. The result is that of one
process.

Each process sends its share of a batch through the image tower and its share of the prompts through the text tower:
nearly all of the work. The features are exchanged, and every process computes the loss over the whole batch, so
every loss is exact, even one that is not a mean over images.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, distributed

from capnet.errors import ConfigError

T = TypeVar("T")

# parameters before the exchange: a process knows the gradient of its own images and classes only
BEFORE_EXCHANGE = ("block_adapters.", "adapter.", "prompt.", "text_adapters.")
TIMEOUT = timedelta(hours=2)  # the others wait while the main process validates


@dataclass(frozen=True)
class ProcessGroup:
    """The processes that train together; the main process, ``rank`` 0, validates, logs and writes. A group of one
    passes everything through.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_main_process(self) -> bool:
        return self.rank == 0

    def share(self, rows: np.ndarray) -> np.ndarray:
        """Those rows of a batch, int [row], that this process encodes."""
        return np.array_split(rows, self.size)[self.rank]

    def gather_features(self, rows: np.ndarray, encode: Callable[[np.ndarray], Tensor]) -> Tensor:
        """Features of a batch, of which each process encodes its share; only that share carries a gradient.

        Args:
            rows: int [row], the whole batch.
            encode: features [row, embed] of some rows.

        Returns:
            [row, embed] of the whole batch.

        Raises:
            ConfigError: the batch has fewer rows than there are processes.
        """
        if self.size == 1:
            return encode(rows)
        shares = np.array_split(rows, self.size)
        if not len(shares[-1]):
            todo = "raise train.batch_size, which is that of all processes together, or start fewer processes"
            raise ConfigError(f"a batch of {len(rows)} images for {self.size} processes", "train.batch_size", todo)
        own = encode(shares[self.rank])
        padded = own.new_zeros(len(shares[0]), own.shape[1])
        padded[: len(own)] = own.detach()
        gathered = [torch.empty_like(padded) for _ in shares]
        distributed.all_gather(gathered, padded)
        parts = [features[: len(share)] for features, share in zip(gathered, shares, strict=True)]
        parts[self.rank] = own
        return torch.cat(parts)

    def sum_gradients(self, parameters: Mapping[str, Tensor]) -> None:
        """Give every process the gradient of the whole batch: shares are added up; what every process has computed for
        the whole batch is averaged against drift.

        Args:
            parameters: of the model, by name, which says whether a part lies before the exchange of features; their
                gradients are changed in place.
        """
        if self.size == 1:
            return
        gradients = []
        for name, parameter in parameters.items():
            if parameter.grad is not None:
                if not name.startswith(BEFORE_EXCHANGE):
                    parameter.grad /= self.size
                gradients.append(parameter.grad)
        together = torch.cat([gradient.flatten() for gradient in gradients])  # one message instead of hundreds
        distributed.all_reduce(together)
        parts = torch.split(together, [gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def broadcast(self, value: T) -> T:
        """The main process's ``value``, in all processes."""
        if self.size == 1:
            return value
        values = [value]
        distributed.broadcast_object_list(values, src=0)
        return values[0]

    def wait(self) -> None:
        """Wait until all processes have come this far."""
        if self.size > 1:
            distributed.barrier()


SINGLE_PROCESS = ProcessGroup()


@contextmanager
def process_group(device: torch.device) -> Iterator[ProcessGroup]:
    """The group that torchrun started this process in, by its environment variables; elsewhere a group of one.

    Args:
        device: that this process computes on; where it is a GPU, torch is given the one of the process.

    Raises:
        ConfigError: there are more processes than GPUs on this machine, or the variables do not say where they meet.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or "RANK" not in os.environ:
        yield SINGLE_PROCESS
        return
    if device.type == "cuda":
        rank, cards = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if rank >= cards:
            what = f"process {rank} of this machine has no GPU of its own: torch sees {cards}"
            raise ConfigError(what, "LOCAL_RANK", "start as many processes as there are GPUs (--nproc-per-node)")
        torch.cuda.set_device(rank)
    try:
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
    except ValueError as error:
        todo = "unset RANK and WORLD_SIZE, or let torchrun set all four"
        raise ConfigError(f"the processes cannot meet: {error}", "MASTER_ADDR, MASTER_PORT", todo) from error
    try:
        yield ProcessGroup(distributed.get_rank(), distributed.get_world_size())
    finally:
        distributed.destroy_process_group()
