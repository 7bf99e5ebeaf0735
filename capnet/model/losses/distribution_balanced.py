"""The distribution-balanced loss: Wu et al., Distribution-Balanced Loss for Multi-Label Classification in Long-Tailed
Datasets, ECCV 2020, with and without the focal factor, and as LMPT has it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from capnet.model.losses.base import Loss, masked_mean
from capnet.model.losses.cross_entropy import bce_elements, focal_factor

if TYPE_CHECKING:
    from torch import Tensor


def rebalanced_weight(targets: Tensor, counts: Tensor, alpha: float, beta: float, mu: float, blank: str) -> Tensor:
    """Re-balanced weight alpha + sigmoid(beta * (r_hat - mu)) (Wu et al., section 3.2).

    r_hat = (1 / n_c) / sum_j(y_j / n_j) compares class-level with instance-level sampling.

    Args:
        targets: 0 or 1, float [image, class].
        counts: n, training positives of each class, [class].
        alpha: offset.
        beta: slope.
        mu: centre.
        blank: an image without labels has r_hat = inf, hence the largest weight (``db``), or r_hat = mu (``neutral``).

    Returns:
        Weights [image, class].
    """
    import torch

    inverse = 1.0 / counts.clamp(min=1)
    repeats = (targets * inverse).sum(dim=1, keepdim=True)  # [image, 1]
    repeats_or_tiny = repeats.clamp(min=torch.finfo(repeats.dtype).tiny)
    r_hat = inverse / repeats_or_tiny  # above all others where an image has no label
    if blank == "neutral":
        r_hat = torch.where(repeats > 0, r_hat, torch.full_like(r_hat, mu))
    return alpha + torch.sigmoid(beta * (r_hat - mu))


def negative_tolerant_shift(counts: Tensor, n_images: int, kappa: float, negative_scale: float) -> Tensor:
    """Class-specific shift nu = -kappa * log(N / n_c - 1) / lambda (Wu et al., section 3.3), in training only.

    Args:
        counts: n, training positives of each class, [class].
        n_images: N, number of training images.
        kappa: scale of the shift.
        negative_scale: lambda.

    Returns:
        What is added to every logit of a class, [class].
    """
    import torch

    inside = counts.clamp(min=0.5, max=n_images - 0.5)  # keeps classes in no or in every image finite
    return -kappa * torch.log(n_images / inside - 1.0) / negative_scale


class Balanced(Loss):
    """What the three distribution-balanced losses share."""

    alpha: float = Field(0.1, description="map of the re-balanced weight: offset")
    beta: float = Field(10.0, description="map of the re-balanced weight: slope")
    mu: float = Field(0.2, description="map of the re-balanced weight: centre (VOC-LT 0.3, COCO-LT 0.2)")
    negative_scale: float = Field(
        2.0, gt=0, description="lambda of negative-tolerant regularisation (VOC-LT 5, COCO-LT 2)"
    )
    kappa: float = Field(0.05, ge=0, description="scale of the class-specific shift nu")
    blank: Literal["db", "neutral"] = Field(
        "neutral", description="weight of images without labels: the largest (db) or the middle one (neutral)"
    )

    def weighted(self, logits: Tensor, targets: Tensor, counts: Tensor, n_images: int) -> tuple[Tensor, Tensor]:
        """Elements of the loss and their weights, before the focal factor and the mean.

        Args:
            logits, targets, counts, n_images: as in ``compute``.

        Returns:
            Elements and weights, each [image, class]; those of negatives are divided by lambda in the weights.
        """
        import torch

        shift = negative_tolerant_shift(counts, n_images, self.kappa, self.negative_scale)
        elements = bce_elements(logits + shift, targets, self.negative_scale)
        weight = rebalanced_weight(targets, counts, self.alpha, self.beta, self.mu, self.blank)
        return elements, torch.where(targets > 0, weight, weight / self.negative_scale)


class Db(Balanced):
    """Distribution-balanced loss without the focal factor."""

    name: Literal["db"] = "db"

    def compute(self, logits: Tensor, targets: Tensor, counts: Tensor, n_images: int, known: Tensor) -> Tensor:
        elements, weight = self.weighted(logits, targets, counts, n_images)
        return masked_mean(weight * elements, known)


class DbFocal(Balanced):
    """Distribution-balanced focal loss: the focal factor weighs every element."""

    name: Literal["db_focal"] = "db_focal"
    gamma: float = Field(2.0, ge=0, description="focal exponent")

    def compute(self, logits: Tensor, targets: Tensor, counts: Tensor, n_images: int, known: Tensor) -> Tensor:
        elements, weight = self.weighted(logits, targets, counts, n_images)
        return masked_mean(weight * focal_factor(elements, self.gamma) * elements, known)


class DbFocalLmpt(Balanced):
    """As in the code of LMPT (Xia et al., ALVR 2024): the focal factor acts once, on the mean of the batch."""

    name: Literal["db_focal_lmpt"] = "db_focal_lmpt"
    gamma: float = Field(2.0, ge=0, description="focal exponent")

    def compute(self, logits: Tensor, targets: Tensor, counts: Tensor, n_images: int, known: Tensor) -> Tensor:
        elements, weight = self.weighted(logits, targets, counts, n_images)
        return focal_factor(masked_mean(elements, known), self.gamma) * masked_mean(weight * elements, known)
