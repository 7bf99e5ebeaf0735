"""Convolutions with the batch normalisation behind them folded in: what a frozen convolutional tower runs.

On a CPU that, with channels last, saves a third of the time in fp32 and nearly half in bf16 (docs/performance.md).
"""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn.functional import pad
from torch.nn.utils.fusion import fuse_conv_bn_eval

TOLERANCE = 1e-3  # of the outputs' size, in fp32, where rounding alone gives 1e-6


def folded(tower: Any, size: int) -> Any:
    """A copy of a frozen convolutional tower without its batch normalisation, in channels last.

    A normalisation is folded where it is the next child after a convolution, as in open_clip's and timm's networks.
    Convolutions that pad as TensorFlow does pad evenly in it, which is right where their inputs have even sizes.
    Whether they have, and whether a network runs its children in another order, is not looked up but tried.

    Args:
        tower: images [image, 3, size, size] -> features, in evaluation mode, in fp32.
        size: width and height of its images in pixels.

    Returns:
        The copy; None where there is nothing to fold, or where a made image shows that folding changed the function.
    """
    if not any(isinstance(module, nn.BatchNorm2d) for module in tower.modules()):
        return None
    parameter = next(tower.parameters())
    made = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0)).to(parameter) * 4 - 2
    expected = tower(made)
    for evenly in (True, False):
        whole = copy.deepcopy(tower).to(memory_format=torch.channels_last)
        _fold(whole, evenly)
        if _gives(whole, made, expected):
            return whole
    return None


def _gives(tower: Any, images: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether the features are the expected ones; a tower that was changed wrongly may not run at all."""
    try:
        features = tower(images)
    except RuntimeError:
        return False
    if features.shape != expected.shape:
        return False
    return bool((features - expected).abs().max() <= TOLERANCE * expected.abs().max())


def _fold(module: nn.Module, evenly: bool) -> None:
    from timm.layers.conv2d_same import Conv2dSame

    children = list(module.named_children())
    for _, child in children:
        _fold(child, evenly)
    for (name, convolution), (following, normalisation) in pairwise(children):
        if isinstance(convolution, nn.Conv2d) and isinstance(normalisation, nn.BatchNorm2d):
            fused = fuse_conv_bn_eval(convolution, normalisation)
            if evenly and isinstance(fused, Conv2dSame) and fused.stride == (2, 2) and fused.dilation == (1, 1):
                fused = _padding_evenly(fused) if min(fused.kernel_size) > 1 else fused
            setattr(module, name, fused)
            # timm's normalisation brings the activation along
            setattr(module, following, getattr(normalisation, "act", None) or nn.Identity())


def _padding_evenly(convolution: nn.Conv2d) -> nn.Conv2d:
    """TensorFlow's "same" convolution of stride 2, where the input's sizes are even: a row and a column more are padded
    behind the image than in front of it. A row and a column of zeros in front of the kernel make both equal, so that no
    padded copy of the input is written.
    """
    height, width = convolution.kernel_size
    even = nn.Conv2d(
        convolution.in_channels,
        convolution.out_channels,
        (height + 1, width + 1),
        stride=2,
        padding=(height // 2, width // 2),
        groups=convolution.groups,
        device="meta",  # weights are not drawn: they are set below
    )
    weight = pad(convolution.weight, (1, 0, 1, 0)).contiguous(memory_format=torch.channels_last)
    even.weight, even.bias = nn.Parameter(weight, requires_grad=False), convolution.bias
    return even
