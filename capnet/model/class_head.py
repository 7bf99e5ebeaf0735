"""A visual weight vector for each class, anchored in its text: the sixth part, which is not in the paper.

logit_c = exp(scale) * cos(v, t_c) + bias + U_c . (x - mean) / spread, with v and x the joint and the pooled feature of
an image and t_c the hand-written text. U starts at zero, so training starts at zero-shot, and what a rare class has too
few images to learn stays with its text. A linear probe (logistic regression) is this head without the anchor; compare
text-initialised classifiers (Wortsman et al., CVPR 2022) and CLIP-Adapter's residual (Gao et al., IJCV 2024).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from capnet.config import Loss
from capnet.model.losses import multilabel_loss
from capnet.model.statistics import Rows, moments

SCALES = (1.0, 200.0)
BIAS = 10.0  # largest start in logits: where a class is in no image, or in all of them, the best one is infinite
START_STEPS = 100


class ClassHead(nn.Module):
    """Class-specific weights on standardised pooled features, and a text term with a scale and a bias of its own."""

    def __init__(self, n_classes: int, pooled: int, logit_scale: float, logit_bias: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(n_classes, pooled))
        self.logit_scale = nn.Parameter(torch.tensor(math.log(logit_scale)))
        self.logit_bias = nn.Parameter(torch.tensor(logit_bias))
        self.mean = nn.Parameter(torch.zeros(pooled), requires_grad=False)
        self.spread = nn.Parameter(torch.ones(pooled), requires_grad=False)

    @torch.no_grad()
    def set_statistics(self, features: Rows) -> None:
        """Take mean and spread of every feature from pooled features [..., pooled] of the training images."""
        mean, variance = moments(features)
        self.mean.copy_(mean)
        spread = variance.sqrt()
        self.spread.copy_(torch.where(spread > 1e-6, spread, torch.ones_like(spread)))

    def forward(self, pooled: Tensor, cosines: Tensor) -> Tensor:
        """Logits [image, class] from pooled features [image, pooled] and image-text cosines [image, class]."""
        standardised = (pooled - self.mean) / self.spread
        return self.logit_scale.exp() * cosines + self.logit_bias + standardised @ self.weight.T


def fit_start(cosines: Tensor, targets: Tensor, known: Tensor, counts: Tensor, loss: Loss) -> tuple[float, float]:
    """A logit scale and a shared bias to start from: one standard deviation of the zero-shot cosines is one logit, and
    with that scale the bias has the smallest training loss.

    Towers differ in geometry: image-text cosines of CLIP lie near 0.2 with a spread of 0.03, those of centred towers
    around 0 with 0.1. A start that does not fit is paid for in the first epochs.

    Args:
        cosines: zero-shot image-text cosines of training images, [image, class].
        targets: bool [image, class].
        known: bool [image, class].
        counts: known positives, [class].
        loss: the training loss.

    Returns:
        The logit scale, within SCALES, and the bias; of a loss that no shared bias changes, one that makes the mean
        logit -3.
    """
    spread = float(cosines[known].std()) if int(known.sum()) > 1 else 0.0
    scale = min(max(1.0 / max(spread, 1e-6), SCALES[0]), SCALES[1])
    logits = scale * (cosines - cosines.mean()).double()
    shift = torch.full((), -3.0, dtype=torch.double, requires_grad=True)
    optimiser: torch.optim.Optimizer = torch.optim.LBFGS([shift], max_iter=START_STEPS, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimiser.zero_grad()
        value = multilabel_loss(logits + shift, targets, counts, len(targets), loss, known)
        torch.autograd.backward(value)
        return float(value.detach())

    optimiser.step(closure)
    offset = min(max(float(shift.detach()), -BIAS), BIAS) if bool(torch.isfinite(shift)) else -3.0
    return scale, offset - scale * float(cosines.mean())
