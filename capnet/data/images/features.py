"""Pooled features of an image tower: of a frozen one kept in the feature store, of a trained one not kept."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from capnet.config import Tte, settings_hash
from capnet.data.images.store import FeatureStore, trim
from capnet.data.images.stored_features import StoredFeatures
from capnet.data.images.views import in_threads, load_rgb, random_view, test_views, to_tensor
from capnet.errors import DataError
from capnet.progress import track
from capnet.runtime import Machine

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

    @property
    def views(self) -> int:
        """How many views of an image there are."""
        return self.random_views if self.tte is None else self.tte.views

    def key(self) -> str:
        """Of what a tower is fed: a seed counts for random views only, and how scores are averaged does not."""
        fields: dict[str, Any] = {
            "transform": [self.size, self.mean, self.std, self.interpolation, self.resize],
            "random": [self.random_views, self.seed] if self.tte is None else [],
            "test_time": [] if self.tte is None else [self.tte.views, self.tte.expand],
        }
        return settings_hash(fields)


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
) -> StoredFeatures:
    """Features [image, view, pooled] of a frozen tower from the feature store; those that it has not are computed.

    With ``concurrent`` a CPU runs as many batches at once as there are threads, each in one of them: for a small
    convolutional tower that takes three quarters of the time of threads that share each batch, and gives the same bits
    (measured). ``pooled`` then has to stand several callers.

    Raises:
        DataError: images have no sha256, or features that 16 bits cannot hold; names them.
    """
    if rows["sha256"].isna().any():  # the store goes by content
        todo = "set ingest.images: decode or header, or give the label table a column sha256"
        raise DataError(
            f"{int(rows['sha256'].isna().sum())} pictures have no hash, because ingest opened none", what, todo
        )
    hashes = rows["sha256"].tolist()
    key = {"weights": weight_hash, "transform": transform.key(), "bf16": machine.bf16, "device": machine.device.type}
    store = FeatureStore(settings_hash(key))
    missing = store.missing(hashes)
    if missing:
        new = rows.iloc[missing]
        views = track(image_tensors(new, root, transform, threads), f"features of {what} pictures", len(new))
        batches = _batches(views, BATCH_VIEWS if machine.device.type == "cpu" else 256)
        with closing(_outputs(pooled, batches, machine, threads, concurrent)) as outputs:
            images = _batches(outputs, transform.views)
            store.fill(new["sha256"].tolist(), _in_16_bits(images, new["path"].tolist(), what))
    features = store.read(hashes)
    if missing:
        del store  # it keeps segments in use that these images do not need
        trim(machine.feature_bytes)
    return features


def _outputs(
    pooled: Callable[[Tensor], Tensor], batches: Iterable[Tensor], machine: Machine, threads: int, concurrent: bool
) -> Generator[Tensor, None, None]:
    """Features [view, pooled] of each batch, in order."""
    if not (concurrent and machine.device.type == "cpu" and threads > 1):
        yield from (_forward(pooled, batch, machine) for batch in batches)
        return
    try:
        yield from in_threads(batches, lambda batch: _alone(pooled, batch, machine), threads, ahead=2 * threads)
    finally:
        torch.set_num_threads(threads)


def _in_16_bits(images: Iterable[Tensor], paths: Sequence[str], what: str) -> Iterator[np.ndarray]:
    """float16 [view, pooled] of each image: exactly what a tower gives under bf16 autocast, else rounded to 11 bits."""
    for features, path in zip(images, paths, strict=True):
        half = features.half()
        if not bool(torch.isfinite(half).all()):
            raise DataError(
                f"features are not finite in 16 bits for {path}",
                what,
                "look at this picture, or set runtime.precision: fp32",
            )
        yield half.numpy()


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
