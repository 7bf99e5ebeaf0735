"""Binary cross-entropy, and the focal loss, which weighs it down where the score is right already.

Focal loss: Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, equation 4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from capnet.model.losses.base import Loss, masked_mean

if TYPE_CHECKING:
    from torch import Tensor

FOCAL_FACTOR = 2.0  # the balance parameter in the code of Wu et al., ECCV 2020


def bce_elements(logits: Tensor, targets: Tensor, negative_scale: float = 1.0) -> Tensor:
    """Binary cross-entropy, softplus(-z) for positives and softplus(lambda * z) for negatives.

    Lambda is the scale of negative-tolerant regularisation (Wu et al., ECCV 2020, section 3.3).

    Args:
        logits: z, float [image, class].
        targets: 0 or 1, [image, class].
        negative_scale: lambda; 1 is plain binary cross-entropy.

    Returns:
        Elements [image, class], not yet divided by lambda.
    """
    import torch
    from torch.nn.functional import logsigmoid

    # torch's softplus is 2e-9 off from 20 on
    return -torch.where(targets > 0, logsigmoid(logits), logsigmoid(-negative_scale * logits))


def focal_factor(elements: Tensor, gamma: float) -> Tensor:
    """2 * (1 - exp(-element))^gamma; the gradient flows through it as in the code of Wu et al., ECCV 2020.

    The base stays above zero: below gamma 1 the slope at zero is infinite and an element that underflows would make
    NaN.

    Args:
        elements: cross-entropy, of any shape.
        gamma: exponent.

    Returns:
        Factors of the same shape.
    """
    import torch

    return FOCAL_FACTOR * (-torch.expm1(-elements)).clamp(min=1e-12) ** gamma


class Bce(Loss):
    """Mean binary cross-entropy."""

    name: Literal["bce"] = "bce"

    def compute(self, logits: Tensor, targets: Tensor, counts: Tensor, n_images: int, known: Tensor) -> Tensor:
        return masked_mean(bce_elements(logits, targets), known)


class Focal(Loss):
    """Mean focal loss, times 2."""

    name: Literal["focal"] = "focal"
    gamma: float = Field(2.0, ge=0, description="focal exponent")

    def compute(self, logits: Tensor, targets: Tensor, counts: Tensor, n_images: int, known: Tensor) -> Tensor:
        elements = bce_elements(logits, targets)
        return masked_mean(focal_factor(elements, self.gamma) * elements, known)
