"""Threads, device, precision and seeds, set once at the start of a stage."""

from __future__ import annotations

import ctypes
import logging
import os
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from capnet.config import Runtime
from capnet.errors import ConfigError

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)
MOST_WORKERS = 16
CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
MAPPED, KEPT = 256 * 2**20, 2**30
GLIBC_VARIABLES = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")


@dataclass(frozen=True)
class Machine:
    """Where tensors live, in which precision frozen towers run, who decodes images, and how much is stored."""

    device: torch.device
    bf16: bool  # frozen towers run under bf16 autocast
    workers: int = 0  # processes that decode images; 0: threads of this one do
    feature_bytes: int = 20 * 10**9  # size that the feature store may reach

    @property
    def precision(self) -> str:
        """bf16 or fp32."""
        return "bf16" if self.bf16 else "fp32"

    def autocast(self) -> AbstractContextManager[object]:
        import torch

        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)


def need_docstrings() -> None:
    """Raise ConfigError under `python -OO`: transformers and great_expectations cannot be imported there."""
    if sys.flags.optimize > 1:
        todo = "run it without -OO, and with PYTHONOPTIMIZE unset or 1"
        raise ConfigError("libraries need their docstrings, which are left out", "options of Python", todo)


def need_utf8() -> None:
    """Raise ConfigError where Python takes names of files for another encoding than UTF-8, as some locales make it:
    names with other letters could not be opened, and would be blamed on the images.
    """
    encoding = sys.getfilesystemencoding()
    if encoding != "utf-8":
        todo = "set PYTHONUTF8=1, or a locale of UTF-8 such as LC_ALL=C.UTF-8"
        raise ConfigError(f"Python takes names of files for {encoding}, not for UTF-8", "locale or PYTHONUTF8", todo)


def prepare(settings: Runtime) -> Machine:
    """Fix threads, seeds and deterministic kernels; raises ConfigError when a device that was asked for is missing.

    On a GPU those kernels are deterministic that torch can make so: gradients of fused attention differ by rounding.
    """
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    _keep_memory()
    import torch

    torch.set_num_threads(settings.threads)
    require_device(settings.device)
    settings = resolved(settings)
    device, bf16 = torch.device(settings.device), settings.precision == "bf16"
    torch.manual_seed(settings.seed)
    torch.use_deterministic_algorithms(True, warn_only=device.type == "cuda")
    # new tensors are written before they are read; to fill them first took 6 % of a convolutional tower's time
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.allow_tf32 = False  # fp32 is fp32, on every card: features are stored by precision
    torch.set_float32_matmul_precision("highest")  # also where TORCH_ALLOW_TF32_CUBLAS_OVERRIDE is set
    if bf16 and not _has_bf16(settings.device):
        log.warning("bf16 is slow on this %s; runtime.precision: fp32 gives other scores", settings.device)
    return Machine(device, bf16, workers(settings), int(settings.feature_gigabytes * 10**9))


def _keep_memory() -> None:
    """Let the C library keep memory that tensors of up to MAPPED bytes leave, up to KEPT bytes, for the next ones. By
    default glibc returns it to the system, and a tower spends a third of its time on getting it again, page by page
    (docs/performance.md). Other C libraries, and settings in glibc's own variables, stay as they are.
    """
    if any(name in os.environ for name in GLIBC_VARIABLES):
        return
    with suppress(AttributeError, OSError, TypeError):
        set_option = ctypes.CDLL(None).mallopt
        set_option(M_MMAP_THRESHOLD, MAPPED)
        set_option(M_TRIM_THRESHOLD, KEPT)


def require_device(device: str, where: str = "params.yaml") -> None:
    """Raise ConfigError where ``device`` is a GPU and there is none; ``where`` it was asked for."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        todo = "set runtime.device: auto or cpu, or give the task a GPU"
        raise ConfigError("runtime.device = 'cuda', but torch sees no GPU", where, todo)


def resolved(settings: Runtime) -> Runtime:
    """The section with this machine's choices for ``auto``: a checkpoint is used only where they are the same."""
    import torch

    device = settings.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    precision = settings.precision
    if precision == "auto":
        precision = "bf16" if _has_bf16(device) else "fp32"
    return settings.model_copy(update={"device": device, "precision": precision})


def workers(settings: Runtime) -> int:
    """Processes that decode images: as set, else one for each core that this process may use, 16 at most and none on
    a single core. Processes that train together share the cores.
    """
    if settings.workers >= 0:
        return settings.workers
    share = cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return min(share, MOST_WORKERS) if share > 1 else 0


def cores() -> int:
    """Cores that this process may use, at least 1; in a container no more than the whole cores of its share."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):  # the container's share; "max 100000" where there is none
        quota, period = map(int, CPU_LIMIT.read_text().split())
        count = min(count, quota // period)
    return max(1, count)


def _has_bf16(device: str) -> bool:
    """True on CPUs for which bf16 autocast was measured to be faster (docs/performance.md), and on GPUs that have it
    in hardware, of which none was measured.

    Nothing is timed here: that would choose another precision on a busy day.
    """
    import torch

    if device == "cuda":
        return torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)
    abilities: Mapping[str, object] = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(abilities.get("avx512_bf16"))  # also of every CPU with amx_bf16
