"""CapNet (arXiv 2511.20641): images -> logits [image, class].

logit_c = exp(scale) * cos(v, t_c + GCN(t)_c) + bias, with class-specific soft prompts t, a GCN over the label graph,
AdaptFormer in the blocks of a ViT (or a bottleneck adapter on the pooled feature) and both towers frozen.

Besides these five parts there may be a class head and a linear probe. What is served is a mean of their logits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from capnet.config import Loss, Train
from capnet.contracts import check_tensors
from capnet.errors import ContractError
from capnet.model.adapters import BridgeAdapter, block_adapters, bottleneck_adapter, text_adapters
from capnet.model.class_head import ClassHead, fit_start
from capnet.model.gcn import LabelGcn
from capnet.model.losses.cross_entropy import Bce
from capnet.model.members import LinearProbe, average_views, start_weights, weighted_sum
from capnet.model.prompts import PromptLearner
from capnet.model.statistics import Rows, chunks
from capnet.model.towers import Towers

EncodePrompts = Callable[[], Tensor]  # un-normalised text features of all prompts [class, embed]
START_ENTRIES = 2_000_000  # of images times classes, evenly drawn from the table, that scale and bias start from
HEAD_LOSS = Bce()  # of the class head: balancing cost it a point in the tail on Corel5k


@dataclass
class ClassFeatures:
    """Unit text features [class, embed]: ``refined`` by training, and ``zero_shot`` of the hand-written prompts."""

    refined: Tensor
    zero_shot: Tensor


class CapNet(nn.Module):
    """The trained parts around frozen towers; ``towers`` are no child modules, so only trained tensors are saved."""

    hand_written: Tensor  # un-normalised text features of the hand-written prompts [class, embed]

    def __init__(
        self, towers: Towers, prompt_names: Sequence[str], adjacency: Tensor, text_features: Tensor, settings: Train
    ) -> None:
        super().__init__()
        self.settings = settings
        self._towers = [towers]  # in a list: kept out of the module tree
        width = towers.embed_dim
        self.register_buffer("hand_written", towers.centre(text_features.float()), persistent=False)
        self.prompt = PromptLearner(towers.text, prompt_names, settings.prompt) if settings.prompt.enabled else None
        self.gcn = (
            LabelGcn(adjacency.float(), width, settings.gcn.hidden, settings.gcn.zero_init)
            if settings.gcn.enabled
            else None
        )
        adapter = settings.adapter
        self.block_adapters = block_adapters(towers.image, adapter)
        self.adapter = bottleneck_adapter(towers, adapter)
        self.text_adapters = text_adapters(towers.text, adapter)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(settings.head.logit_scale)))
        self.logit_bias = nn.Parameter(torch.tensor(settings.head.bias_init)) if settings.head.bias else None
        n_classes = len(text_features)
        head = ClassHead(
            n_classes, towers.pooled_dim + towers.stage_dim, settings.head.logit_scale, settings.head.bias_init
        )
        self.class_head = head if settings.class_head.enabled else None
        self.linear_probe = LinearProbe(n_classes, towers.pooled_dim) if settings.blend == "held_out" else None
        self.weights = start_weights(settings)  # of what is served; config.json has those of a saved model

    @property
    def towers(self) -> Towers:
        return self._towers[0]

    @property
    def n_classes(self) -> int:
        return len(self.hand_written)

    @property
    def tower_is_frozen(self) -> bool:
        """True where pooled features of an image never change in training, so that they can be cached."""
        return self.block_adapters is None

    def release_towers(self) -> None:
        """Take this model's adapters off the towers; needed before another model is built on the same towers."""
        for adapters in (self.block_adapters, self.text_adapters):
            if adapters is not None:
                adapters.remove()

    @property
    def needs_plain_features(self) -> bool:
        """Whether what is served also takes features of the tower without its adapters."""
        return not self.tower_is_frozen and any(self.weights.get(name) for name in ("linear_probe", "zero_shot"))

    def prepare_for(self, pooled: Rows, targets: Tensor, known: Tensor) -> None:
        """Set the statistics and start values that come from the training images.

        Args:
            pooled: features of the tower without adapters, [image, view, pooled]; read in chunks.
            targets: bool [image, class].
            known: bool [image, class].
        """
        if isinstance(self.adapter, BridgeAdapter):
            self.adapter.set_statistics(pooled)
        if self.class_head is not None:
            self.class_head.set_statistics(pooled)
        if self.settings.head.start == "settings":
            return
        every = math.ceil(targets.numel() / START_ENTRIES)
        with torch.no_grad():
            device, zero_shot = self.logit_scale.device, self._zero_shot().T
            means = (part.mean(dim=1).to(device) for part in chunks(pooled, every))
            cosines = torch.cat([(self.image_features(part, adapted=False) @ zero_shot).cpu() for part in means])
        targets, known = targets[::every], known[::every]
        counts = (targets & known).sum(dim=0)
        parts = [(self, self.settings.loss), (self.class_head, HEAD_LOSS)]
        for part, loss in parts:
            if part is None or part.logit_bias is None:
                continue
            scale, bias = fit_start(cosines, targets, known, counts, loss)
            with torch.no_grad():
                part.logit_scale.fill_(math.log(scale))
                part.logit_bias.fill_(bias)

    def class_features(self, encode: EncodePrompts | None = None) -> ClassFeatures:
        """Text features of all classes; gradients flow to prompts, GCN and text adapters.

        Training passes an ``encode`` of its own, because every step runs the text tower. For evaluation and serving all
        prompts are encoded in full precision, so that machines agree.
        """
        text = self.hand_written
        if self.prompt is not None:
            encoded = self.prompt(self.towers.text) if encode is None else encode()
            text = self.towers.centre(encoded.float())
        if self.gcn is not None:
            text = text + self.gcn(text)
        return ClassFeatures(normalize(text, dim=-1), self._zero_shot())

    def _zero_shot(self) -> Tensor:
        """Unit features of the hand-written prompts [class, embed]."""
        return normalize(self.hand_written, dim=-1)

    def pooled(self, images: Tensor, adapted: bool = True) -> Tensor:
        """Pooled features [image, pooled (+ stages)] of images [image, 3, size, size], without adapters if not
        ``adapted``.
        """
        if self.block_adapters is None:
            with torch.no_grad():
                return self.towers.image.pooled(images).float()
        self.block_adapters.active = adapted
        try:
            return self.towers.image.pooled(images).float()
        finally:
            self.block_adapters.active = True

    @property
    def blocks_behind_tokens(self) -> int:
        """How many of the image tower's last blocks are all that training changes; 0 where it is more or nothing."""
        tower, blocks = self.towers.image, self.settings.adapter.blocks
        divides = self.block_adapters is not None and 0 < blocks < len(tower.blocks) and tower.divides
        return blocks if divides else 0

    def image_features(self, pooled: Tensor, adapted: bool = True) -> Tensor:
        """Unit image features [image, embed] of pooled features [image, pooled (+ stages)], without adapter if not
        ``adapted``.
        """
        pooled = pooled[..., : self.towers.pooled_dim]
        adapter = self.adapter if adapted else None
        if adapter is not None and self.settings.adapter.location == "pooled":
            pooled = pooled + adapter(pooled)
        v = normalize(self.towers.image.project(pooled), dim=-1)
        if adapter is not None and self.settings.adapter.location != "pooled":
            v = normalize(v + adapter(pooled if self.settings.adapter.location == "bridge" else v), dim=-1)
        return v

    def logits(self, image_features: Tensor, class_features: Tensor) -> Tensor:
        """Logits [image, class] from unit features [image, embed] and [class, embed]."""
        output = self.logit_scale.exp() * image_features @ class_features.T
        return output if self.logit_bias is None else output + self.logit_bias

    def encode(self, pooled: Tensor) -> Tensor:
        """What the losses need of images [image, embed (+ pooled)]: unit features, and for the class head the pooled
        ones.

        The class head does not train the tower: with and without it the five parts are the same.
        """
        features = self.image_features(pooled)
        return features if self.class_head is None else torch.cat([features, pooled.detach().to(features.dtype)], dim=1)

    def losses(
        self, encoded: Tensor, classes: ClassFeatures, loss: Callable[[Tensor, Loss], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """The training loss of a batch.

        Args:
            encoded: images as ``encode`` gives them.
            classes: text features.
            loss: gives the scalar loss of logits [image, class] under the settings of a loss.

        Returns:
            The scalar to minimise, and the logits [image, class] of the five parts.
        """
        embed = classes.refined.shape[1]
        logits = self.logits(encoded[:, :embed], classes.refined)
        total = loss(logits, self.settings.loss)
        if self.class_head is not None:
            total = total + loss(self._head_logits(encoded[:, embed:], classes.zero_shot), HEAD_LOSS)
        return total, logits

    def _head_logits(self, pooled: Tensor, zero_shot: Tensor) -> Tensor:
        assert self.class_head is not None
        with torch.no_grad():
            cosines = self.image_features(pooled, adapted=False) @ zero_shot.T
        return self.class_head(pooled, cosines)

    def members(self, pooled: Tensor, classes: ClassFeatures, plain: Tensor) -> dict[str, Tensor]:
        """Logits [image, class] of each member that this model has; ``capnet`` is the paper's five parts.

        Args:
            pooled: features of the tower with its adapters, [image, pooled].
            classes: text features.
            plain: features of the tower without them; the same for a frozen tower, and where they are not needed.
        """
        logits = {"capnet": self.logits(self.image_features(pooled), classes.refined)}
        if self.class_head is not None:
            logits["class_head"] = self._head_logits(pooled, classes.zero_shot)
        if self.linear_probe is not None:
            logits["linear_probe"] = self.linear_probe(plain[..., : self.towers.pooled_dim])
        return logits | {"zero_shot": self.logits(self.image_features(plain, adapted=False), classes.zero_shot)}

    def members_of_views(self, views: Tensor, classes: ClassFeatures, plain: Tensor) -> dict[str, Tensor]:
        """``members`` for features [image, view, pooled]: logits [image, view, class]."""
        members = self.members(views.flatten(0, 1), classes, plain.flatten(0, 1))
        return {name: logits.view(*views.shape[:2], -1) for name, logits in members.items()}

    def served(self, members: Mapping[str, Tensor]) -> Tensor:
        """The weighted mean of the members' logits [..., class]; a member of weight 0 is left out."""
        return weighted_sum(members, self.weights)

    @torch.no_grad()
    def ensemble(self, views: Tensor, classes: ClassFeatures, average: str, plain: Tensor) -> tuple[Tensor, Tensor]:
        """Served and zero-shot scores of images, averaged over their views.

        Args:
            views: features of the tower with its adapters, [image, view, pooled].
            classes: text features.
            average: as in ``average_views``.
            plain: as in ``members_of_views``.

        Returns:
            Each float32 [image, class] in [0, 1].
        """
        members = self.members_of_views(views, classes, plain)
        return average_views(self.served(members), average), average_views(members["zero_shot"], average)

    def forward(self, images: Tensor) -> Tensor:
        """Training logits [image, class] of images [image, 3, size, size]."""
        return self.logits(self.image_features(self.pooled(images)), self.class_features().refined)

    def trained_tensors(self) -> dict[str, Tensor]:
        """Copies of all trained tensors by name: megabytes, while the towers are hundreds."""
        return {name: tensor.detach().cpu().clone() for name, tensor in self.named_parameters()}

    def load_trained(self, tensors: Mapping[str, Tensor], where: str) -> None:
        """Put saved tensors back.

        Args:
            tensors: by name, as ``trained_tensors`` gives them.
            where: their file, for errors.

        Raises:
            ContractError: names or shapes differ, or values are no numbers.
        """
        if self.linear_probe is not None and "linear_probe.centre" not in tensors:
            self.linear_probe.centre = None  # of an older version
        own = dict(self.named_parameters())
        check_tensors(tensors, {name: tuple(tensor.shape) for name, tensor in own.items()}, Path(where))
        if len(tensors) > len(own):
            others = ", ".join(sorted(tensors.keys() - own.keys())[:5])
            raise ContractError(f"saved tensors of other settings: {others}", where, "train again with these settings")
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(tensors[name])
