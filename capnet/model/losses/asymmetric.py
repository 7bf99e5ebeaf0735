"""The asymmetric loss: Ridnik et al., Asymmetric Loss for Multi-Label Classification, ICCV 2021, equation 7."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from capnet.model.losses.base import Loss, masked_mean
from capnet.section import Share

if TYPE_CHECKING:
    from torch import Tensor


def asymmetric_elements(
    logits: Tensor, targets: Tensor, gamma_positive: float, gamma_negative: float, clip: float
) -> Tensor:
    """Positives and negatives are focused by exponents of their own, and easy negatives are dropped.

    Bases of powers stay above zero, so that exponents below 1 have a finite slope; 1 - p is taken as sigmoid(-logit),
    which float32 does not round to zero.

    Args:
        logits: un-normalised scores, float [image, class].
        targets: 0 or 1, [image, class].
        gamma_positive: focal exponent of positives.
        gamma_negative: focal exponent of negatives.
        clip: probability that is taken off negatives; one below it costs nothing.

    Returns:
        Elements [image, class].
    """
    import torch
    from torch.nn.functional import logsigmoid

    p, q = torch.sigmoid(logits), torch.sigmoid(-logits)
    tiny = torch.finfo(q.dtype).tiny
    positive = -(q.clamp(min=1e-12) ** gamma_positive) * logsigmoid(logits)
    negative = -((p - clip).clamp(min=1e-12) ** gamma_negative) * torch.log((q + clip).clamp(min=tiny, max=1.0))
    return torch.where(targets > 0, positive, negative)


class Asymmetric(Loss):
    """Mean asymmetric loss."""

    name: Literal["asl"] = "asl"
    gamma_positive: float = Field(0.0, ge=0, description="exponent of positives")
    gamma_negative: float = Field(4.0, ge=0, description="exponent of negatives")
    clip: Share = Field(0.05, description="probability taken off negatives")

    def compute(self, logits: Tensor, targets: Tensor, counts: Tensor, n_images: int, known: Tensor) -> Tensor:
        return masked_mean(
            asymmetric_elements(logits, targets, self.gamma_positive, self.gamma_negative, self.clip), known
        )
