"""Where the trainer gets an image's pooled features: from the store for a frozen tower, else from decoded images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from capnet.data.images.loader import Batch, load_batches, require_good
from capnet.data.images.stored_features import Features
from capnet.data.images.transform import Item, Transform
from capnet.data.images.views import to_tensor
from capnet.model.capnet import CapNet
from capnet.runtime import Machine


class TrainingImages(Protocol):
    """Augmented training images, as the features that the model starts from."""

    def announce(self, batches: Sequence[np.ndarray], epoch: int) -> None:
        """Say which rows ``pooled`` will be asked for next, int [row] for each call, so that images are read ahead."""
        ...

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

    def announce(self, batches: Sequence[np.ndarray], epoch: int) -> None:
        """Nothing is read ahead."""

    def pooled(self, rows: np.ndarray, epoch: int) -> Tensor:
        n_rows, n_views = self.features.shape[:2]
        view = np.random.default_rng([self.seed, epoch, 3]).integers(n_views, size=n_rows)
        features = self.features[torch.from_numpy(rows), torch.from_numpy(view[rows])].to(self.device)
        return features if self.finished is None else self.finished(features)


@dataclass
class DecodedImages:
    """Images of a table for a trained tower, augmented anew in each epoch; decoded while earlier steps are computed."""

    model: CapNet
    rows: pd.DataFrame
    root: Path
    transform: Transform
    machine: Machine
    seed: int
    threads: int
    _ahead: Iterator[Batch] = field(default_factory=lambda: iter(()))

    def announce(self, batches: Sequence[np.ndarray], epoch: int) -> None:
        """Start to decode the images of ``batches``; what was announced before is dropped."""
        paths, hashes = self.rows["path"].to_numpy(), self.rows["sha256"].fillna("").to_numpy()
        chunks = ([Item(paths[row], (self.seed, epoch, int(row)), hashes[row]) for row in batch] for batch in batches)
        self._ahead = load_batches(
            chunks, self.root, self.transform, self.machine, self.threads, sum(map(len, batches))
        )

    def pooled(self, rows: np.ndarray, epoch: int) -> Tensor:
        """Features of the next of the batches that were announced, which ``rows`` must be."""
        batch = next(self._ahead)
        require_good(batch.items, batch.faults, self.root)
        assert [item.draw for item in batch.items] == [(self.seed, epoch, int(row)) for row in rows]
        views = to_tensor(batch.views(self.machine.device), self.transform.mean, self.transform.std)
        with self.machine.autocast():
            return self.model.pooled(views)
