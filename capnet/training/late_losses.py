"""Loss values that stay on the device until several are fetched at once, so that no step waits for a value."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from capnet.errors import DataError, some

STEPS_ON_GPU = 16  # between two fetches
HIGHEST_LOGIT = 16.0  # a little above it a float32 sigmoid is 1, so that scores which differ become equal
MANY = 0.1  # share of the first step's logits above that

logger = logging.getLogger(__name__)


class LateLosses:
    """Collects the losses of an epoch's steps.

    Args:
        device: that computes them.
        image_ids: of the training rows, for messages.
        warns: whether to warn where the first step's scores are too high to be ranked.
    """

    def __init__(self, device: torch.device, image_ids: Sequence[str], warns: bool = True) -> None:
        self.every = STEPS_ON_GPU if device.type == "cuda" else 1  # a CPU has nothing to wait for
        self.image_ids = image_ids
        self.warns = warns
        self.waiting: list[tuple[Tensor, Tensor, np.ndarray]] = []
        self.saturated: Tensor | None = None  # share of the first step's logits

    def add(self, loss: Tensor, logits: Tensor, batch: np.ndarray) -> None:
        """Remember the loss of a step, without waiting for the device.

        Args:
            loss: a scalar.
            logits: [image, class]; only whether they are finite is kept.
            batch: int [image], the rows of the training table.
        """
        if self.warns:
            self.saturated, self.warns = (logits.detach() > HIGHEST_LOGIT).float().mean(), False
        self.waiting.append((loss.detach(), torch.isfinite(logits.detach()).all(dim=1), batch))

    @property
    def due(self) -> bool:
        return len(self.waiting) >= self.every

    def fetch(self, epoch: int) -> list[float]:
        """The values since the last fetch.

        Raises:
            DataError: one is not finite; names the images of that batch whose scores broke, else all of them.
        """
        if not self.waiting:
            return []
        values: list[float] = torch.stack([loss for loss, _, _ in self.waiting]).tolist()
        for value, (_, finite, batch) in zip(values, self.waiting, strict=True):
            if not math.isfinite(value):
                rows = batch[~finite.numpy(force=True)]
                raise DataError(
                    f"the loss stopped being a number in epoch {epoch}",
                    f"images {some([self.image_ids[row] for row in (rows if len(rows) else batch)], 8)}",
                    "check these images, or lower the learning rates in train.optimiser",
                )
        if self.saturated is not None and float(self.saturated) > MANY:
            logger.warning(
                "%.0f %% of the first step's scores have a logit above %.0f, where float32 makes all of them 1, and"
                " equal scores cannot be ranked. Set train.head.start: data and train.head.bias: true, or lower"
                " train.head.logit_scale or bias_init (docs/method.md, Logits)",
                100 * float(self.saturated),
                HIGHEST_LOGIT,
            )
        self.saturated, self.waiting = None, []
        return values
