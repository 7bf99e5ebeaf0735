"""Statistics of more features than memory holds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

CHUNK = 1024  # images


class Rows(Protocol):
    """Features [image, ..., pooled]: a tensor, or what reads them when they are asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, images: slice, /) -> Tensor: ...


def chunks(features: Rows, every: int = 1) -> Iterator[Tensor]:
    """Features of some images, read a part at a time.

    Args:
        features: [image, ..., pooled].
        every: step from one image to the next.

    Yields:
        [image, ..., pooled] of at most CHUNK images.
    """
    for start in range(0, len(features), CHUNK * every):
        yield features[start : start + CHUNK * every : every]


def moments(features: Rows) -> tuple[Tensor, Tensor]:
    """Mean and variance float64 [pooled] over all images and views."""
    count, total, squares = 0, torch.zeros(()).double(), torch.zeros(()).double()
    for part in chunks(features):
        flat = part.flatten(0, -2).double()
        count += len(flat)
        total = total + flat.sum(dim=0)
        squares = squares + flat.square().sum(dim=0)
    mean = total / count
    return mean, (squares / count - mean.square()).clamp_min(0)
