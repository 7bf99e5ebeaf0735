"""Several processes train one model: `torchrun --nproc-per-node 2 -m capnet.cli train`. The result is that of one
process.

Each process sends its share of a batch through the image tower, which is nearly all of the work. The features are
exchanged, and every process computes the loss over the whole batch, so any loss is exact, also one that is no mean over
pictures.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import torch
from torch import Tensor, distributed

from capnet.errors import ConfigError

# parameters before the exchange: a process knows the gradient of its own pictures only
IMAGE_SIDE = ("block_adapters.", "adapter.")
PATIENCE = timedelta(hours=2)  # the others wait while the first one validates


@dataclass(frozen=True)
class ProcessGroup:
    """The processes that train together; ``rank`` 0 validates, logs and writes. A group of one does nothing but return
    what it is given.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_main_process(self) -> bool:
        return self.rank == 0

    def features(self, rows: np.ndarray, encode: Callable[[np.ndarray], Tensor]) -> Tensor:
        """Features [row, embed] of all ``rows``, of which this process encodes its share; only those carry a gradient.

        Raises ConfigError where a batch has fewer rows than there are processes.
        """
        if self.size == 1:
            return encode(rows)
        shares = np.array_split(rows, self.size)
        if not len(shares[-1]):
            todo = "raise train.batch_size, which is that of all processes together, or start fewer processes"
            raise ConfigError(f"a batch of {len(rows)} pictures for {self.size} processes", "train.batch_size", todo)
        own = encode(shares[self.rank])
        padded = own.new_zeros(len(shares[0]), own.shape[1])
        padded[: len(own)] = own.detach()
        found = [torch.empty_like(padded) for _ in shares]
        distributed.all_gather(found, padded)
        return torch.cat([own if rank == self.rank else found[rank][: len(share)] for rank, share in enumerate(shares)])

    def sum_gradients(self, parameters: Mapping[str, Tensor]) -> None:
        """Give every process the gradient of the whole batch: shares are added up, what all have already is averaged
        against drift.
        """
        if self.size == 1:
            return
        with_gradient = [(name, parameter.grad) for name, parameter in parameters.items() if parameter.grad is not None]
        flat = torch.cat(
            [
                gradient.flatten() * (1.0 if name.startswith(IMAGE_SIDE) else 1.0 / self.size)
                for name, gradient in with_gradient
            ]
        )
        distributed.all_reduce(flat)
        for _, gradient in with_gradient:
            gradient.copy_(flat[: gradient.numel()].view_as(gradient))
            flat = flat[gradient.numel() :]

    def broadcast(self, content: bytes) -> bytes:
        """What the first process says, to all of them."""
        if self.size == 1:
            return content
        device = torch.device("cuda" if distributed.get_backend() == "nccl" else "cpu")
        length = torch.tensor([len(content)], device=device)
        distributed.broadcast(length, src=0)
        data = (
            torch.frombuffer(bytearray(content), dtype=torch.uint8).to(device)
            if self.is_main_process and content
            else torch.empty(int(length), dtype=torch.uint8, device=device)
        )
        if int(length):
            distributed.broadcast(data, src=0)
        return data.cpu().numpy().tobytes()

    def wait(self) -> None:
        """Until all have come here."""
        if self.size > 1:
            distributed.barrier()


ALONE = ProcessGroup()


@contextmanager
def process_group(device: torch.device) -> Iterator[ProcessGroup]:
    """The group that torchrun started this process in, by its environment variables; elsewhere a group of one."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or "RANK" not in os.environ:
        yield ALONE
        return
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield ProcessGroup(distributed.get_rank(), distributed.get_world_size())
    finally:
        distributed.destroy_process_group()
