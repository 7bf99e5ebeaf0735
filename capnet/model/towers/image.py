"""The image tower behind one interface, whatever open_clip or timm built it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from capnet.model.towers.attention import without_copies
from capnet.model.towers.folding import folded
from capnet.model.towers.text import pooled_only


@dataclass(frozen=True)
class Preprocess:
    """How images become tensors.

    Attributes:
        size: width and height in pixels.
        mean: of each channel, of values in [0, 1].
        std: standard deviation of each channel.
        interpolation: name of PIL's filter.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bicubic"


class ImageTower(nn.Module):
    """An open_clip visual tower, divided where adapters of towers without blocks go: ``pooled``, then ``project``.

    ``stages``: ``pooled`` also gives the mean features of each stage of a convolutional network, behind the last ones.
    Earlier layers know what the last one, trained for other classes, has dropped (Evci et al., ICML 2022: Head2Toe).
    """

    visual: Any

    def __init__(self, visual: Any, stages: bool = False) -> None:
        super().__init__()
        self.stages = stages
        self.visual = without_copies(pooled_only(visual))
        self._head = visual.head if hasattr(visual, "trunk") else None  # timm towers end in their own projection
        self.folded: Any = None

    @torch.no_grad()
    def fold(self, size: int) -> None:
        """Let ``pooled`` run a faster copy of a convolutional tower; ``visual`` stays what its weights' file holds.

        Args:
            size: width and height of its images in pixels.
        """
        if not self.blocks and self.folded is None:
            self.folded = folded(self.network, size)

    @property
    def network(self) -> Any:
        """What ``pooled`` runs."""
        if self.folded is not None:
            return self.folded
        return self.visual if self._head is None else self.visual.trunk

    @property
    def blocks(self) -> list[nn.Module]:
        """Transformer blocks, none for convolutional towers."""
        if self._head is None:
            blocks = getattr(getattr(self.visual, "transformer", None), "resblocks", [])
        else:
            blocks = getattr(self.visual.trunk, "blocks", [])
        is_vit = len(blocks) > 0 and any(hasattr(blocks[0], name) for name in ("norm2", "ln_2"))
        return list(blocks) if is_vit else []

    @property
    def is_convolutional(self) -> bool:
        """Whether one thread a batch is faster than threads that share each batch: true of convolutional towers."""
        return not self.blocks

    def pooled(self, images: Tensor) -> Tensor:
        """Pooled features [image, pooled (+ stages)] of images [image, 3, size, size]."""
        if self.folded is not None:
            images = images.contiguous(memory_format=torch.channels_last)
        if not self.stages:
            return self.network(images)
        if self._head is None:
            output = self.network.forward_intermediates(images)
            last, maps = output["image_features"], output["image_intermediates"]
        else:
            final, maps = self.network.forward_intermediates(images)
            last = self.network.forward_head(final)
        # with 16 bits each, as the feature store keeps them: a model predicts from what it was trained and measured on
        return torch.cat([last, *(item.float().mean(dim=(2, 3)).half().float() for item in maps)], dim=1)

    @property
    def has_stages(self) -> bool:
        """Whether it is a convolutional network that gives the features of its stages."""
        return self.is_convolutional and hasattr(self.network, "forward_intermediates")

    @property
    def divides(self) -> bool:
        """Whether it can be run in two parts, ``tokens`` and ``pooled_of_tokens``: open_clip's own ViTs and timm's."""
        from open_clip.transformer import VisionTransformer
        from timm.models.vision_transformer import VisionTransformer as TimmVisionTransformer

        if self._head is not None:
            return type(self.visual.trunk) is TimmVisionTransformer
        return type(self.visual) is VisionTransformer and self.visual.transformer.batch_first

    @property
    def keeps_fp32(self) -> bool:
        """Whether what goes from block to block stays fp32 under bf16 autocast: in timm's ViTs, which add fp32
        positions to it, and not in open_clip's own, which add them in bf16.
        """
        return self._head is not None

    def tokens(self, images: Tensor, blocks: int) -> Tensor:
        """What the tower's last blocks are given.

        Args:
            images: [image, 3, size, size].
            blocks: number of those blocks, at least 1; the tower ``divides``.

        Returns:
            [image, token, width].
        """
        if self._head is None:
            x = self.visual._embeds(images)
        else:
            trunk = self.visual.trunk
            x = trunk.norm_pre(trunk.patch_drop(trunk._pos_embed(trunk.patch_embed(images))))
        for block in self.blocks[:-blocks]:
            x = block(x)
        return x

    def pooled_of_tokens(self, tokens: Tensor, blocks: int) -> Tensor:
        """Run the tower's last blocks on ``tokens``.

        Args:
            tokens: [image, token, width].
            blocks: their number, the same as in ``tokens``.

        Returns:
            [image, pooled], as ``pooled`` gives them.
        """
        x = tokens
        for block in self.blocks[-blocks:]:
            x = block(x)
        if self._head is not None:
            return self.visual.trunk.forward_head(self.visual.trunk.norm(x))
        pooled, _ = self.visual._pool(x)
        return pooled if self.visual.proj is None else pooled @ self.visual.proj

    def project(self, pooled: Tensor) -> Tensor:
        """Features in the joint space [image, embed], un-normalised, of pooled features [image, pooled]."""
        return pooled if self._head is None else self._head(pooled)
