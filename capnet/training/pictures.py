"""Two sources of training pictures: cached features of a frozen tower, or decoded pictures through a trained one."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from capnet.data.images.features import Transform
from capnet.data.images.views import in_threads, load_rgb, random_view, to_tensor
from capnet.model.capnet import CapNet
from capnet.runtime import Machine

CACHE_BYTES = 4 * 2**30  # decoded pictures kept in memory
KEPT_SIDE = 1.5  # shorter side of a kept picture, as a multiple of the tower's input


@dataclass
class CachedViews:
    """Features [row, view, pooled]; each look at a row takes one of its views at random."""

    features: Tensor
    device: torch.device
    seed: int

    def pooled(self, rows: np.ndarray, epoch: int) -> Tensor:
        n_rows, n_views, _ = self.features.shape
        view = np.random.default_rng([self.seed, epoch, 3]).integers(n_views, size=n_rows)
        return self.features[torch.from_numpy(rows), torch.from_numpy(view[rows])].to(self.device)


@dataclass
class DecodedImages:
    """Pictures of the table, decoded once while memory lasts, cropped anew each epoch and sent through the tower."""

    model: CapNet
    rows: pd.DataFrame
    root: Path
    transform: Transform
    machine: Machine
    seed: int
    threads: int
    _cache: dict[int, Image.Image] = field(default_factory=dict)
    _bytes: int = 0

    def pooled(self, rows: np.ndarray, epoch: int) -> Tensor:
        views = torch.cat(
            list(in_threads([int(row) for row in rows], lambda row: self._view(row, epoch), self.threads))
        )
        with self.machine.autocast():
            return self.model.pooled(views.to(self.machine.device))

    def _view(self, row: int, epoch: int) -> Tensor:
        rng = np.random.default_rng([self.seed, epoch, row])
        transform = self.transform
        return to_tensor(
            [random_view(self._picture(row), transform.size, transform.interpolation, rng, transform.resize)],
            transform.mean,
            transform.std,
        )

    def _picture(self, row: int) -> Image.Image:
        if row in self._cache:
            return self._cache[row]
        image = load_rgb(self.root / self.rows["path"].iloc[row])
        scale = self.transform.size * KEPT_SIDE / min(image.size)
        if scale < 1:
            image = image.resize(
                (round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC, reducing_gap=3.0
            )
        size = image.width * image.height * 3
        if self._bytes + size <= CACHE_BYTES:
            self._cache[row] = image
            self._bytes += size
        return image
