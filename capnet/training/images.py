"""Where the trainer gets an image's pooled features: from the store for a frozen tower, else from decoded images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from capnet.data.images.features import Transform
from capnet.data.images.stored_features import Features
from capnet.data.images.views import in_threads, load_rgb, random_view, to_tensor
from capnet.model.capnet import CapNet
from capnet.runtime import Machine

CACHE_BYTES = 4 * 2**30  # of decoded images in memory
CACHED_SCALE = 1.5  # shorter side of a cached image, as a multiple of the tower's input


class TrainingImages(Protocol):
    """Augmented training images, as the features that the model starts from."""

    def pooled(self, rows: np.ndarray, epoch: int) -> Tensor:
        """Features [row, pooled] of ``rows`` int [row], with a gradient where the tower is trained."""
        ...


@dataclass
class CachedFeatures:
    """``features`` [row, view, ...] of a frozen tower, or of its first blocks and how they are ``finished``; an epoch
    takes one view of each row at random.
    """

    features: Features
    device: torch.device
    seed: int
    finished: Callable[[Tensor], Tensor] | None = None

    def pooled(self, rows: np.ndarray, epoch: int) -> Tensor:
        n_rows, n_views = self.features.shape[:2]
        view = np.random.default_rng([self.seed, epoch, 3]).integers(n_views, size=n_rows)
        features = self.features[torch.from_numpy(rows), torch.from_numpy(view[rows])].to(self.device)
        return features if self.finished is None else self.finished(features)


@dataclass
class DecodedImages:
    """Images of a table for a trained tower, augmented anew in each epoch; decoded once, while memory lasts."""

    model: CapNet
    rows: pd.DataFrame
    root: Path
    transform: Transform
    machine: Machine
    seed: int
    threads: int
    _cache: dict[int, Image.Image] = field(default_factory=dict)
    _cached_bytes: int = 0

    def pooled(self, rows: np.ndarray, epoch: int) -> Tensor:
        views = in_threads(rows.tolist(), lambda row: self._augmented(row, epoch), self.threads)
        batch = torch.cat(list(views)).to(self.machine.device)  # [row, 3, size, size]
        with self.machine.autocast():
            return self.model.pooled(batch)

    def _augmented(self, row: int, epoch: int) -> Tensor:
        """A random view [1, 3, size, size]."""
        rng, transform = np.random.default_rng([self.seed, epoch, row]), self.transform
        view = random_view(self._decoded(row), transform.size, transform.interpolation, rng, transform.resize)
        return to_tensor([view], transform.mean, transform.std)

    def _decoded(self, row: int) -> Image.Image:
        if row in self._cache:
            return self._cache[row]
        image = load_rgb(self.root / self.rows["path"].iloc[row])
        scale = self.transform.size * CACHED_SCALE / min(image.size)
        if scale < 1:
            size = round(image.width * scale), round(image.height * scale)
            image = image.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
        n_bytes = image.width * image.height * 3
        if self._cached_bytes + n_bytes <= CACHE_BYTES:
            self._cache[row] = image
            self._cached_bytes += n_bytes
        return image
