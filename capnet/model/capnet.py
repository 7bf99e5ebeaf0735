"""CapNet (arXiv 2511.20641): pictures -> logits [picture, class].

logit_c = exp(scale) * cos(v, t_c + GCN(t)_c) + bias, with class-specific soft prompts t, a GCN over the label graph,
AdaptFormer in every block of a ViT (or a bottleneck adapter on the pooled feature) and both towers frozen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from capnet.config import Train
from capnet.errors import ConfigError, ContractError
from capnet.model.adapters import AdaptFormer, BlockAdapters, BridgeAdapter
from capnet.model.gcn import LabelGcn
from capnet.model.prompts import PromptLearner
from capnet.model.towers import Towers

Precision = Callable[[], AbstractContextManager[object]]


@dataclass
class ClassFeatures:
    """Unit text features [class, embed]: ``refined`` by training, and ``zero_shot`` of the hand-written prompts."""

    refined: Tensor
    zero_shot: Tensor


class CapNet(nn.Module):
    """The trained parts around frozen towers; ``towers`` are no child modules, so only trained tensors are saved."""

    def __init__(self, towers: Towers, prompt_names: Sequence[str], adjacency: Tensor, text_features: Tensor, settings: Train) -> None:
        super().__init__()
        self.settings = settings
        self._towers = [towers]  # in a list: kept out of the module tree
        width = towers.embed_dim
        self.register_buffer("hand_written", towers.centre(text_features.float()), persistent=False)
        self.prompt = PromptLearner(towers.text, prompt_names, settings.prompt) if settings.prompt.enabled else None
        self.gcn = LabelGcn(adjacency.float(), width, settings.gcn.hidden, settings.gcn.zero_init) if settings.gcn.enabled else None
        self.block_adapters: BlockAdapters | None = None
        self.adapter: AdaptFormer | BridgeAdapter | None = None
        self.text_adapters: BlockAdapters | None = None
        if settings.adapter.enabled:
            self._add_adapters(towers, settings)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(settings.head.logit_scale)))
        self.logit_bias = nn.Parameter(torch.tensor(settings.head.bias_init)) if settings.head.bias else None

    def _add_adapters(self, towers: Towers, settings: Train) -> None:
        bottleneck, scale = settings.adapter.bottleneck, settings.adapter.scale
        if towers.image.blocks:
            self.block_adapters = BlockAdapters(towers.image.blocks, towers.image.block_width, bottleneck, scale)
        elif settings.adapter.place == "bridge":
            self.adapter = BridgeAdapter(towers.pooled_dim, towers.embed_dim, bottleneck, scale)
        else:
            place_width = towers.pooled_dim if settings.adapter.place == "pooled" else towers.embed_dim
            self.adapter = AdaptFormer(place_width, bottleneck, scale)
        if settings.adapter.towers == "image+text":
            blocks = towers.text.blocks
            if not blocks:
                raise ConfigError("this backbone's text tower has no blocks that AdaptFormer knows", "train.adapter.towers", "set train.adapter.towers: image")
            block: Any = blocks[0]
            width = int(block.ln_2.weight.shape[0])
            self.text_adapters = BlockAdapters(blocks, width, bottleneck, scale)

    @property
    def towers(self) -> Towers:
        return self._towers[0]

    @property
    def tower_is_frozen(self) -> bool:
        """True where pooled features of a picture never change in training, so that they can be cached."""
        return self.block_adapters is None

    def release_towers(self) -> None:
        """Take this model's adapters off the towers; needed before another model is built on the same towers."""
        for adapters in (self.block_adapters, self.text_adapters):
            if adapters is not None:
                adapters.remove()

    def prepare_for(self, pooled: Tensor) -> None:
        """Take from pooled features [..., pooled] of the training pictures what is needed before training."""
        if isinstance(self.adapter, BridgeAdapter):
            self.adapter.set_statistics(pooled)

    # ------------------------------------------------------------ text side

    def class_features(self, prompt_precision: Precision = nullcontext) -> ClassFeatures:
        """Text features of all classes; gradients flow to prompts, GCN and text adapters.

        Training encodes prompts under ``prompt_precision`` (an autocast), because every step runs the text tower; what is
        evaluated and served is always encoded in full precision, so that machines agree.
        """
        hand_written = self.hand_written
        assert isinstance(hand_written, Tensor)
        text = hand_written
        if self.prompt is not None:
            with prompt_precision():
                encoded = self.prompt(self.towers.text)
            text = self.towers.centre(encoded.float())
        if self.gcn is not None:
            text = text + self.gcn(text)
        return ClassFeatures(normalize(text, dim=-1), normalize(hand_written, dim=-1))

    # ------------------------------------------------------------ image side

    def pooled(self, images: Tensor, adapted: bool = True) -> Tensor:
        """Pooled features [picture, pooled] of pictures [picture, 3, size, size]; ``adapted=False`` leaves adapters out."""
        if self.block_adapters is None:
            with torch.no_grad():
                return self.towers.image.pooled(images).float()
        self.block_adapters.active = adapted
        try:
            return self.towers.image.pooled(images).float()
        finally:
            self.block_adapters.active = True

    def image_features(self, pooled: Tensor, adapted: bool = True) -> Tensor:
        """Unit image features [picture, embed] of pooled features."""
        adapter = self.adapter if adapted else None
        if adapter is not None and self.settings.adapter.place == "pooled":
            pooled = pooled + adapter(pooled)
        v = normalize(self.towers.image.project(pooled), dim=-1)
        if adapter is not None and self.settings.adapter.place != "pooled":
            v = normalize(v + adapter(pooled if self.settings.adapter.place == "bridge" else v), dim=-1)
        return v

    # ------------------------------------------------------------ logits

    def logits(self, image_features: Tensor, class_features: Tensor) -> Tensor:
        """[picture, class] from unit features."""
        output = self.logit_scale.exp() * image_features @ class_features.T
        return output if self.logit_bias is None else output + self.logit_bias

    def score(self, pooled: Tensor, classes: ClassFeatures, pooled_zero_shot: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Served and zero-shot logits, each [picture, class]; the served ones hold their share of zero-shot scores."""
        plain = self.image_features(pooled if pooled_zero_shot is None else pooled_zero_shot, adapted=False)
        zero_shot = self.logits(plain, classes.zero_shot)
        trained = self.logits(self.image_features(pooled), classes.refined)
        share = self.settings.zero_shot_weight
        return (1 - share) * trained + share * zero_shot, zero_shot

    @torch.no_grad()
    def ensemble(self, views: Tensor, classes: ClassFeatures, average: str, views_zero_shot: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Served and zero-shot scores in [0, 1], each [picture, class], averaged over ``views`` [picture, view, pooled].

        Averages logits before the sigmoid (LIFT) or probabilities behind it.
        """
        flat = views.flatten(0, 1)
        plain = None if views_zero_shot is None else views_zero_shot.flatten(0, 1)
        pairs = (item.view(*views.shape[:2], -1).double() for item in self.score(flat, classes, plain))
        served, zero_shot = (item.mean(dim=1).sigmoid() if average == "logits" else item.sigmoid().mean(dim=1) for item in pairs)
        return served.float(), zero_shot.float()

    def forward(self, images: Tensor) -> Tensor:
        """Training logits [picture, class] of pictures [picture, 3, size, size]."""
        return self.logits(self.image_features(self.pooled(images)), self.class_features().refined)

    # ------------------------------------------------------------ what is saved

    def trained_tensors(self) -> dict[str, Tensor]:
        """Copies of all trained tensors by name: megabytes, while the towers are hundreds."""
        return {name: tensor.detach().cpu().clone() for name, tensor in self.named_parameters()}

    def load_trained(self, tensors: Mapping[str, Tensor], where: str) -> None:
        """Put saved tensors back; raises ContractError where names or shapes differ."""
        own = dict(self.named_parameters())
        wrong = sorted(set(own) ^ set(tensors)) + [name for name in own if name in tensors and own[name].shape != tensors[name].shape]
        if wrong:
            raise ContractError(f"saved tensors do not fit these settings: {', '.join(wrong[:5])}", where, "train again with these settings")
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(tensors[name])
