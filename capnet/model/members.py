"""The members whose logits are blended into what is served: their weights, their mean over views, and the one of them
that no gradient trains.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from capnet.config import Train


def average_views(logits: Tensor, average: str) -> Tensor:
    """Test-time ensembling: scores of images from the logits of their views.

    Args:
        logits: [image, view, class].
        average: setting tte.average: logits, before the sigmoid (LIFT, Shi et al., ICML 2024), or probabilities, behind
            it.

    Returns:
        float32 [image, class] in [0, 1], averaged in float64.
    """
    logits = logits.double()
    scores = logits.mean(dim=1).sigmoid() if average == "logits" else logits.sigmoid().mean(dim=1)
    return scores.float()


def weighted_sum(members: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """The blend's logits [..., class].

    Args:
        members: logits [..., class] by member.
        weights: of the members; one of weight 0 is left out, and may be missing.
    """
    return torch.stack([weight * members[name] for name, weight in weights.items() if weight]).sum(dim=0)


class LinearProbe(nn.Module):
    """A fitted linear probe: logits [image, class] of pooled features [image, pooled]. Never trained by gradients.

    It sees directions (x - centre) / |x - centre|; without a centre, as in older models, features as they are.
    """

    def __init__(self, n_classes: int, pooled: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(n_classes, pooled), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(n_classes), requires_grad=False)
        self.centre: nn.Parameter | None = nn.Parameter(torch.zeros(pooled), requires_grad=False)

    def forward(self, pooled: Tensor) -> Tensor:
        features = pooled if self.centre is None else normalize(pooled - self.centre, dim=-1)
        return features @ self.weight.T + self.bias


def start_weights(settings: Train) -> dict[str, float]:
    """The members' weights where none were chosen: the trained parts alike, and where no blend will be chosen the share
    of zero-shot in ``settings``.
    """
    trained = ("capnet", "class_head") if settings.class_head.enabled else ("capnet",)
    share = settings.zero_shot_weight if settings.blend == "none" else 0.0
    return {name: (1 - share) / len(trained) for name in trained} | ({"zero_shot": share} if share else {})
