"""Features that lie in files: indexed like a tensor [image, view, ...], read when they are asked for."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

RESIDENT_BYTES = 128 * 2**20  # of mapped pages that a process holds; the system keeps them where it has memory
TOUCHED_BYTES = 2 * 2**20  # pages that come in with one row, at most: Linux maps a large folio of the page cache whole


@dataclass
class StoredViews:
    """Some views of images: image i is row ``rows[i]`` of the segment ``numbers[i]``, float16 [row, view, ...]."""

    segments: Sequence[tuple[np.ndarray, mmap.mmap]]
    numbers: np.ndarray
    rows: np.ndarray
    _touched: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one image: [view, ...]."""
        return self.segments[0][0].shape[1:] if self.segments else (1, 1)

    def read(self, images: np.ndarray, views: np.ndarray | None = None) -> np.ndarray:
        """All views of ``images`` int [image], float16 [image, view, ...], or of each the one in ``views``."""
        shape = self.shape if views is None else self.shape[1:]
        result = np.empty((len(images), *shape), dtype=np.float16)
        numbers, rows = self.numbers[images], self.rows[images]
        for number in np.unique(numbers):
            chosen = numbers == number
            features, _ = self.segments[number]
            result[chosen] = features[rows[chosen]] if views is None else features[rows[chosen], views[chosen]]
        self._let_go(len(images) * max(TOUCHED_BYTES, int(np.prod(shape)) * 2))
        return result

    def select(self, images: np.ndarray) -> StoredViews:
        return StoredViews(self.segments, self.numbers[images], self.rows[images])

    def _let_go(self, touched: int) -> None:
        self._touched += touched
        if self._touched > RESIDENT_BYTES:
            for _, mapped in self.segments:
                mapped.madvise(mmap.MADV_DONTNEED)
            self._touched = 0


class StoredFeatures:
    """float16 features [image, view, ...] of the feature store, given out as float32; of the last dimension only the
    first ``width`` numbers.
    """

    def __init__(self, parts: Sequence[StoredViews], width: int | None = None) -> None:
        self.parts = parts  # one after the other in the dimension of views
        self.width = width

    @property
    def shape(self) -> tuple[int, ...]:
        views = sum(part.shape[0] for part in self.parts)
        *dimensions, width = self.parts[0].shape[1:]
        return (len(self), views, *dimensions, width if self.width is None else self.width)

    def __len__(self) -> int:
        return len(self.parts[0].rows)

    def __getitem__(self, key: slice | Tensor | tuple[Tensor, Tensor]) -> Tensor:
        """All views of some images [image, view, ...], or one view of each [image, ...]."""
        if isinstance(key, tuple):
            return self._one_view(key[0].numpy(), key[1].numpy())[..., : self.width]
        images = np.arange(len(self))[key] if isinstance(key, slice) else key.numpy()
        views = [part.read(images)[..., : self.width] for part in self.parts]
        return torch.from_numpy(np.concatenate(views, axis=1)).float()

    def _one_view(self, images: np.ndarray, views: np.ndarray) -> Tensor:
        result = np.empty((len(images), *self.parts[0].shape[1:]), dtype=np.float16)
        start = 0
        for part in self.parts:
            chosen = (views >= start) & (views < start + part.shape[0])
            result[chosen] = part.read(images[chosen], views[chosen] - start)
            start += part.shape[0]
        return torch.from_numpy(result).float()

    def index_select(self, dim: int, images: Tensor) -> StoredFeatures:
        """Those of ``images``, still unread; ``dim`` is 0."""
        assert dim == 0
        return StoredFeatures([part.select(images.numpy()) for part in self.parts], self.width)

    def numpy(self) -> np.ndarray:
        """All of them, float32 [image, view, ...]."""
        return self[:].numpy()


Features = Tensor | StoredFeatures


def last_stage(features: Features, width: int) -> Features:
    """The features that a linear probe takes, without those of earlier stages.

    Args:
        features: [image, view, pooled + stages].
        width: how many of them are pooled ones.

    Returns:
        [image, view, pooled], still unread where they are in the feature store.
    """
    return features[..., :width] if isinstance(features, Tensor) else StoredFeatures(features.parts, width)


def join_views(parts: Sequence[StoredFeatures]) -> StoredFeatures:
    """The views of all ``parts``, which are of the same images, one after the other."""
    return StoredFeatures([item for part in parts for item in part.parts])
