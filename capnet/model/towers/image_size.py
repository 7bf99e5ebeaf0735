"""Another image size than a backbone was trained with: position embeddings are interpolated as open_clip does."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from capnet.errors import ConfigError
from capnet.streams import quiet

RESNET_STRIDE = 32  # pixels per cell in front of the attention pooling of CLIP's ResNets


def set_image_size(visual: Any, size: int, name: str) -> None:
    """Let an image tower with loaded weights take another size; equal to open_clip's ``force_image_size`` at loading.

    Args:
        visual: open_clip's image tower, changed in place.
        size: width and height in pixels.
        name: of the backbone, for errors.

    Raises:
        ConfigError: the tower cannot take this size.
    """
    if hasattr(visual, "trunk"):
        _set_timm(visual, size, name)
    elif hasattr(visual, "attnpool"):
        cells = _cells(size, RESNET_STRIDE, name)
        visual.attnpool.positional_embedding = _resized(visual.attnpool.positional_embedding, cells)
        visual.image_size = size
    else:
        cells = _cells(size, int(visual.patch_size[0]), name)
        visual.positional_embedding = _resized(visual.positional_embedding, cells)
        visual.grid_size, visual.image_size = (cells, cells), (size, size)


def _set_timm(visual: Any, size: int, name: str) -> None:
    """Towers of timm: those with positions are set to a size, convolutional ones take any."""
    patches: Any = getattr(visual.trunk, "patch_embed", None)
    if hasattr(patches, "patch_size"):
        _cells(size, int(patches.patch_size[0]), name)
    try:
        visual.set_input_size(size)
        with torch.no_grad():
            visual(torch.zeros(1, 3, size, size))
    except (RuntimeError, ValueError, AssertionError) as error:
        what = f"tte.size = {size}: {name} takes no images of this size: {' '.join(str(error).split())[:200]}"
        raise ConfigError(what, "settings", "set tte.size: 0, the backbone's own, or take another backbone") from None


def _cells(size: int, step: int, name: str) -> int:
    """Patches in a row, for a patch size of ``step`` pixels."""
    if size % step:
        below = max(step, size // step * step)
        what = f"tte.size = {size}: {name} cuts images into squares of {step} pixels"
        raise ConfigError(what, "settings", f"set tte.size to a multiple of {step}, such as {below} or {below + step}")
    return size // step


def _resized(embedding: Tensor, cells: int) -> nn.Parameter:
    """Position embedding [1 + old cells, width] of a class token and a square grid -> [1 + cells * cells, width]."""
    from open_clip.model import resize_pos_embed

    key = "visual.positional_embedding"
    state = {key: embedding.detach()}
    with quiet({"": max(logging.getLogger().level, logging.WARNING)}):  # it writes to the root logger
        resize_pos_embed(state, SimpleNamespace(visual=SimpleNamespace(grid_size=(cells, cells))))
    return nn.Parameter(state[key], requires_grad=False)
