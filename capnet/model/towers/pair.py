"""Both towers of a backbone with what else the method needs to know about them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from capnet.config import settings_hash
from capnet.model.towers.image import ImageTower, Preprocess
from capnet.model.towers.text import TextTower, make_text_tower


@dataclass
class Towers:
    """Both towers, frozen.

    Attributes:
        image: the image tower.
        text: the text tower.
        preprocess: what the image tower takes.
        embed_dim: width of the joint space.
        pooled_dim: width of the image tower's pooled features.
        stage_dim: width of the features of its earlier stages behind these; 0 without ``backbone.stages``.
        weight_hash: sha256 of the weights as published.
        architecture: what ``packed.build_visual`` needs to build the image tower again: open_clip's ``embed_dim``,
            ``vision_cfg`` and ``quick_gelu``, and ``resized``, the image size in pixels (0: the backbone's own).
        centring: mean [embed] and orthogonal projector [embed, embed] of text features, where the backbone has them.
        resize: the ``tte.resize`` that the weights were trained with, where it is known not to be the default; else "".
    """

    image: ImageTower
    text: TextTower
    preprocess: Preprocess
    embed_dim: int
    pooled_dim: int
    weight_hash: str
    architecture: Mapping[str, Any]
    centring: tuple[Tensor, Tensor] | None = None
    resize: str = ""
    stage_dim: int = 0

    @property
    def feature_key(self) -> str:
        """Key of the image tower in the feature store; one file makes other features with another activation."""
        stages = " stages" if self.stage_dim else ""
        return f"{self.weight_hash} {settings_hash(self.architecture)}{stages}"

    def centre(self, text_features: Tensor) -> Tensor:
        """Centred text features [class, embed]; unchanged where the backbone has no centring projector."""
        if self.centring is None:
            return text_features
        mean, projector = (tensor.to(text_features) for tensor in self.centring)
        return (text_features - mean) @ projector

    def to(self, device: torch.device) -> Towers:
        """Move both towers, made ready to run; returns itself. Convolutions on a GPU take channels last, as its kernels
        do.
        """
        self.image.fold(self.preprocess.size)
        self.image.to(device)
        self.text.to(device)
        if device.type == "cuda":
            convolutions: Any = self.image
            convolutions.to(memory_format=torch.channels_last)
        return self

    def compile(self) -> None:
        """Let torch compile the towers block by block: equal blocks share what was compiled, and adapters go along."""
        blocks = (*(self.image.blocks or [self.image.network]), *self.text.blocks)
        # each block's adapter is one more variant of the same code; torch runs it uncompiled from the ninth on
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 4 * len(blocks))
        for block in blocks:
            block.compile()


def assemble(
    model: Any,
    tokenizer: Callable[..., Tensor],
    preprocess: Preprocess,
    weight_hash: str,
    architecture: Mapping[str, Any],
    stages: bool,
) -> Towers:
    """Towers around a model that open_clip built, with weights in it; widths are measured with one black image.

    Args:
        model: open_clip's CLIP or CustomTextCLIP.
        tokenizer: texts and, where it is another than the tower's, the length -> token ids [text, length].
        preprocess: what the image tower takes.
        weight_hash: sha256 that identifies the weights.
        architecture: see ``Towers``.
        stages: setting backbone.stages.
    """
    image = ImageTower(model.visual)
    text = make_text_tower(model, tokenizer)
    with torch.no_grad():
        black = torch.zeros(1, 3, preprocess.size, preprocess.size)
        pooled = image.pooled(black)
        embed, width = int(image.project(pooled).shape[1]), int(pooled.shape[1])
        image.stages = stages and image.has_stages
        stage_dim = int(image.pooled(black).shape[1]) - width if image.stages else 0
    return Towers(image, text, preprocess, embed, width, weight_hash, architecture, stage_dim=stage_dim)


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names and bytes of all tensors: identifies weights that came from no single file.

    Args:
        tensors: by name; their order does not count, nor does their device.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
