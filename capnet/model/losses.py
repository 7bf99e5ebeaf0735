"""Losses for long-tailed multi-label learning, from logits, labels and training counts; free of device and state.

Distribution-balanced loss: Wu et al., ECCV 2020. Asymmetric loss: Ridnik et al., ICCV 2021. Focal loss: Lin et al.,
ICCV 2017.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from capnet.config import Loss

FOCAL_FACTOR = 2.0  # the reference code's balance parameter


def rebalanced_weight(
    targets: Tensor, counts: Tensor, alpha: float, beta: float, mu: float, blank: str = "db"
) -> Tensor:
    """Re-balanced weight [image, class] = alpha + sigmoid(beta * (r_hat - mu)).

    r_hat = (1 / n_c) / sum_j(y_j / n_j) compares class-level with instance-level sampling. A picture without labels
    has r_hat = inf, hence the largest weight (``blank='db'``), or r_hat = mu (``blank='neutral'``).
    """
    inverse = 1.0 / counts.clamp(min=1)
    repeats = (targets * inverse).sum(dim=1, keepdim=True)  # [image, 1]
    r_hat = inverse / repeats  # inf where a picture has no label
    if blank == "neutral":
        r_hat = torch.where(repeats > 0, r_hat, torch.full_like(r_hat, mu))
    return alpha + torch.sigmoid(beta * (r_hat - mu))


def negative_tolerant_shift(counts: Tensor, n_images: int, kappa: float, negative_scale: float) -> Tensor:
    """Class-specific shift nu [class] = -kappa * log(N / n_c - 1) / lambda, added to every logit in training only."""
    inside = counts.clamp(min=0.5, max=n_images - 0.5)  # keeps classes in no or in every picture finite
    return -kappa * torch.log(n_images / inside - 1.0) / negative_scale


def negative_tolerant_bce(logits: Tensor, targets: Tensor, shift: Tensor, negative_scale: float) -> Tensor:
    """Elements [image, class]: softplus(-z) for positives, softplus(lambda * z) for negatives, z = logit + nu."""
    z = logits + shift
    # torch's softplus is 2e-9 off from 20 on
    return -torch.where(targets > 0, logsigmoid(z), logsigmoid(-negative_scale * z))


def focal_factor(elements: Tensor, gamma: float) -> Tensor:
    """2 * (1 - exp(-element))^gamma; the gradient flows through it as in the reference code.

    The base stays above zero: below gamma 1 the slope at zero is infinite and an element that underflows would make
    NaN.
    """
    return FOCAL_FACTOR * (-torch.expm1(-elements)).clamp(min=1e-12) ** gamma


def asymmetric_elements(
    logits: Tensor, targets: Tensor, gamma_positive: float, gamma_negative: float, clip: float
) -> Tensor:
    """Asymmetric loss elements [image, class]: negatives are shifted by ``clip`` and focused by ``gamma_negative``.

    Bases of powers stay above zero as in ``focal_factor``; 1 - p is taken as sigmoid(-logit), which float32 does not
    round to zero.
    """
    p, q = torch.sigmoid(logits), torch.sigmoid(-logits)
    tiny = torch.finfo(q.dtype).tiny
    positive = -(q.clamp(min=1e-12) ** gamma_positive) * logsigmoid(logits)
    negative = -((p - clip).clamp(min=1e-12) ** gamma_negative) * torch.log((q + clip).clamp(min=tiny, max=1.0))
    return torch.where(targets > 0, positive, negative)


def multilabel_loss(
    logits: Tensor, targets: Tensor, counts: Tensor, n_images: int, settings: Loss, known: Tensor | None = None
) -> Tensor:
    """Mean loss over the known entries.

    ``logits`` and ``targets`` are [image, class] (targets 0 or 1), ``counts`` [class] are training positives,
    ``n_images`` the number of training pictures, ``known`` bool [image, class] marks the entries that count.
    """
    targets = targets.to(logits.dtype)
    known = torch.ones_like(targets, dtype=torch.bool) if known is None else known
    targets = targets * known  # an unknown label is no positive either
    counts = counts.to(logits)
    balanced = settings.name.startswith("db")
    if settings.name == "asl":
        return masked_mean(
            asymmetric_elements(logits, targets, settings.gamma_positive, settings.gamma_negative, settings.clip), known
        )
    negative_scale = settings.negative_scale if balanced else 1.0
    shift = (
        negative_tolerant_shift(counts, n_images, settings.kappa, negative_scale) if balanced else logits.new_zeros(())
    )
    elements = negative_tolerant_bce(logits, targets, shift, negative_scale)
    weight = torch.ones_like(elements)
    if balanced:
        weight = rebalanced_weight(targets, counts, settings.alpha, settings.beta, settings.mu, settings.blank)
        weight = torch.where(targets > 0, weight, weight / negative_scale)
    if settings.name == "db_focal_lmpt":  # LMPT's copy: the focal factor acts once, on the batch mean
        return focal_factor(masked_mean(elements, known), settings.gamma) * masked_mean(weight * elements, known)
    if settings.name in ("db_focal", "focal"):
        weight = weight * focal_factor(elements, settings.gamma)
    return masked_mean(weight * elements, known)


def masked_mean(elements: Tensor, known: Tensor) -> Tensor:
    """Mean over known entries; unknown ones have no value and no gradient."""
    return torch.where(known, elements, torch.zeros_like(elements)).sum() / known.sum().clamp(min=1)
