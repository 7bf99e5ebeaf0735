"""The members whose logits are blended into what is served, and the one of them that no gradient trains."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from capnet.config import Train


class LinearProbe(nn.Module):
    """A fitted linear probe: logits [image, class] of pooled features [image, pooled]. Never trained by gradients."""

    def __init__(self, n_classes: int, pooled: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(n_classes, pooled), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(n_classes), requires_grad=False)

    def forward(self, pooled: Tensor) -> Tensor:
        return pooled @ self.weight.T + self.bias


def start_weights(settings: Train) -> dict[str, float]:
    """The members' weights where none were chosen: the trained parts alike, and zero-shot's share of ``settings``."""
    trained = ("capnet", "class_head") if settings.class_head.enabled else ("capnet",)
    share = settings.zero_shot_weight
    return {name: (1 - share) / len(trained) for name in trained} | ({"zero_shot": share} if share else {})
