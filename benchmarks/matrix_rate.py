"""How fast this machine multiplies matrices: what the speed of anything built of matrix products is compared with."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from statistics import median

import torch

SIZE = 2048  # rows and columns: large enough to be bound by arithmetic, small enough to take a fifth of a second
MATRIX_FLOPS = 2 * SIZE**3

Clock = Callable[[], float]
CLOCKS: dict[str, Clock] = {  # processor: of one thread, for a machine that others use at the same time
    "wall": time.perf_counter,
    "processor": time.thread_time,
}


def matrix_product(dtype: torch.dtype, device: torch.device | str = "cpu") -> Callable[[], object]:
    """A product of two matrices to be timed: ``MATRIX_FLOPS`` operations at torch's number of threads."""
    a, b = (torch.randn(SIZE, SIZE).to(device, dtype) for _ in range(2))
    return lambda: a @ b


def seconds(work: Callable[[], object], clock: Clock = time.perf_counter) -> float:
    """What ``work`` takes by ``clock``, what it started on a GPU included."""
    _finish()
    start = clock()
    work()
    _finish()
    return clock() - start


def _finish() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def in_turns(works: dict[str, Callable[[], object]], clock: Clock, rounds: int) -> dict[str, list[float]]:
    """Seconds of each of ``works``, in rounds, each round in another order; a first round that warms up is left out."""
    names = list(works)
    taken: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds + 1):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            value = seconds(works[name], clock)
            if turn:
                taken[name].append(value)
    return taken


def about(threads: int, clock: str, device: torch.device | str = "cpu") -> dict[str, object]:
    """What was measured on, for a file of results; ``device``: where it was computed, whatever else the machine has."""
    cpu = torch.cpu.get_capabilities()
    on_gpu = torch.device(device).type == "cuda"
    versions = {name: version(name) for name in ("torch", "open_clip_torch", "timm", "transformers")}
    bf16 = [name for name in ("avx512_bf16", "amx_bf16") if cpu.get(name)]
    return {
        "device": torch.cuda.get_device_name() if on_gpu else cpu["cpu_name"],
        "bf16": bf16,
        "threads": threads,
        "clock": clock,
        "cores": os.cpu_count(),
        "versions": versions,
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and most."""
    return {"median": median(values), "least": min(values), "most": max(values)}


def ratios(slow: Sequence[float], fast: Sequence[float]) -> dict[str, float]:
    """How many times as long ``slow`` took, round by round."""
    return spread([a / b for a, b in zip(slow, fast, strict=True)])
