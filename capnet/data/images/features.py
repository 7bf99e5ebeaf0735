"""Pooled features of a frozen image tower, computed once per picture and view and kept in the state folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from capnet.config import Tte, settings_hash
from capnet.contracts import read_cached_tensors, write_tensors
from capnet.data.images.views import in_threads, load_rgb, random_view, test_views, to_tensor
from capnet.errors import DataError
from capnet.progress import track
from capnet.runtime import Machine
from capnet.state import state_dir

BATCH_VIEWS = 8  # views per forward pass on a CPU: larger batches fall out of its cache (measured)


@dataclass(frozen=True)
class Transform:
    """What is fed to a tower: preprocessing, and either test-time views or a number of random training views."""

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str
    tte: Tte | None = None
    random_views: int = 0
    seed: int = 0
    resize: str = "short"

    def tensor(self, root: Path, path: str, sha256: str) -> Tensor:
        """Views [view, 3, size, size] of one picture; random views depend on seed and content only."""
        image = load_rgb(root / path)
        if self.tte is not None:
            views = test_views(image, self.size, self.tte.views, self.tte.expand, self.interpolation, self.resize)
        else:
            rng = np.random.default_rng([self.seed, int(sha256[:15], 16)])
            views = [
                random_view(image, self.size, self.interpolation, rng, self.resize) for _ in range(self.random_views)
            ]
        return to_tensor(views, self.mean, self.std)

    def key(self) -> str:
        return settings_hash(
            {"look": [self.size, self.mean, self.std, self.interpolation, self.random_views, self.seed, self.resize]},
            self.tte or {},
        )


def image_tensors(rows: pd.DataFrame, root: Path, transform: Transform, threads: int) -> Iterator[Tensor]:
    """Views [view, 3, size, size] of each row, decoded ahead in threads."""
    return in_threads(zip(rows["path"], rows["sha256"], strict=True), lambda row: transform.tensor(root, *row), threads)


@torch.no_grad()
def pooled_features(
    pooled: Callable[[Tensor], Tensor],
    weight_hash: str,
    rows: pd.DataFrame,
    root: Path,
    transform: Transform,
    machine: Machine,
    threads: int,
    what: str,
    concurrent: bool = False,
) -> Tensor:
    """Float features [picture, view, pooled] of a frozen tower, from the state folder where they are already there.

    With ``concurrent`` a CPU runs as many batches at once as there are threads, each in one of them: for a small
    convolutional tower that takes three quarters of the time of threads that share each batch, and gives the same bits
    (measured). ``pooled`` then has to stand several callers.
    """
    if rows["sha256"].isna().any():  # the cache goes by content
        todo = "set ingest.images: decode or header, or give the label table a column sha256"
        raise DataError(
            f"{int(rows['sha256'].isna().sum())} pictures have no hash, because ingest opened none", what, todo
        )
    key = settings_hash(
        {
            "rows": list(rows["sha256"]),
            "weights": weight_hash,
            "look": transform.key(),
            "bf16": machine.bf16,
            "device": machine.device.type,
        }
    )
    path = state_dir("features") / f"{key}.safetensors"
    cached = read_cached_tensors(path, {"features": (len(rows), None, None)})
    if cached is not None:
        return cached["features"]
    on_cpu = machine.device.type == "cpu"
    views = track(image_tensors(rows, root, transform, threads), f"features of {what} pictures", len(rows))
    batches = _batches(views, BATCH_VIEWS if on_cpu else 256)
    if concurrent and on_cpu and threads > 1:
        try:
            parts = list(in_threads(batches, lambda batch: _alone(pooled, batch, machine), threads, ahead=2 * threads))
        finally:
            torch.set_num_threads(threads)
    else:
        parts = [_forward(pooled, batch, machine) for batch in batches]
    if not parts:
        return torch.empty(0, 1, 1)
    features = torch.cat(parts).view(len(rows), -1, parts[0].shape[1])
    if not bool(torch.isfinite(features).all()):
        bad = rows["path"][(~torch.isfinite(features).all(dim=2).all(dim=1)).numpy()].tolist()
        raise DataError(
            f"features are not finite for {len(bad)} pictures, e.g. {bad[0]}",
            what,
            "look at these pictures, or set runtime.precision: fp32",
        )
    write_tensors(path, {"features": features}, {"pictures": len(rows)})
    return features


def _batches(parts: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """``parts`` [any, ...] one after the other, as tensors [size, ...]; the last may be shorter."""
    waiting: list[Tensor] = []
    for part in parts:
        waiting.append(part)
        while sum(map(len, waiting)) >= size:
            joined = torch.cat(waiting)
            yield joined[:size]
            waiting = [joined[size:]] if len(joined) > size else []
    if waiting:
        yield torch.cat(waiting)


@torch.no_grad()
def live_features(
    pooled: Callable[[Tensor], Tensor],
    rows: pd.DataFrame,
    root: Path,
    transform: Transform,
    machine: Machine,
    threads: int,
    what: str,
) -> Tensor:
    """Float features [picture, view, pooled] of a tower whose adapters are trained, so nothing is kept."""
    views = track(image_tensors(rows, root, transform, threads), f"features of {what} pictures", len(rows))
    return torch.stack([_forward(pooled, part, machine) for part in views])


@torch.no_grad()
def _alone(pooled: Callable[[Tensor], Tensor], views: Tensor, machine: Machine) -> Tensor:
    """``_forward`` in one thread of a pool: what torch knows of threads and of gradients it knows for each thread."""
    torch.set_num_threads(1)
    return _forward(pooled, views, machine)


def _forward(pooled: Callable[[Tensor], Tensor], views: Tensor, machine: Machine) -> Tensor:
    """``no_grad`` around it and not ``inference_mode``: with bf16 autocast the latter is many times slower on a CPU."""
    with machine.autocast():
        return pooled(views.to(machine.device)).float().cpu()
