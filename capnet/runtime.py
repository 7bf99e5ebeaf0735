"""Threads, device, precision and seeds, set once at the start of a stage."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from capnet.config import Runtime
from capnet.errors import ConfigError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Machine:
    """Where tensors live, in which precision frozen towers run, and how large the feature store may become."""

    device: torch.device
    bf16: bool
    feature_bytes: int = 20 * 10**9

    def autocast(self) -> AbstractContextManager[object]:
        import torch

        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)


def prepare(settings: Runtime) -> Machine:
    """Fix threads, seeds and deterministic kernels; raises ConfigError when a device that was asked for is missing."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    import torch

    torch.set_num_threads(settings.threads)
    has_gpu = torch.cuda.is_available()
    if settings.device == "cuda" and not has_gpu:
        raise ConfigError(
            "runtime.device = 'cuda', but torch sees no GPU",
            "params.yaml",
            "set runtime.device: auto or cpu, or give the task a GPU",
        )
    device = torch.device("cuda" if has_gpu and settings.device != "cpu" else "cpu")
    torch.manual_seed(settings.seed)
    torch.use_deterministic_algorithms(True, warn_only=device.type == "cuda")
    bf16 = settings.precision == "bf16" or (settings.precision == "auto" and _has_bf16(device))
    return Machine(device, bf16, int(settings.feature_gigabytes * 10**9))


def _has_bf16(device: torch.device) -> bool:
    """True where bf16 runs in hardware, so that autocast is faster and not emulated."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    abilities: Mapping[str, object] = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(abilities.get("avx512_bf16") or abilities.get("amx_bf16"))
