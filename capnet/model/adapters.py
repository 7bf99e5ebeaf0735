"""AdaptFormer (Chen et al., NeurIPS 2022; placement of LIFT, Shi et al., ICML 2024) for open_clip's and timm's
blocks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from threading import get_ident
from typing import Any

import torch
from torch import Tensor, nn

from capnet.config import Adapter
from capnet.errors import ConfigError
from capnet.model.statistics import Rows, moments
from capnet.model.towers import ImageTower, TextTower, Towers

COMPILED = 0  # no thread has this number


class AdaptFormer(nn.Module):
    """scale * up(relu(down(layer_norm(h)))); exactly zero at the start because ``up`` starts at zero.

    ``h`` is [..., width]; the result has the same shape.
    """

    def __init__(self, width: int, bottleneck: int, scale: float = 1.0) -> None:
        super().__init__()
        self.ln = nn.LayerNorm(width)
        self.down_proj = nn.Linear(width, bottleneck)
        self.up_proj = nn.Linear(bottleneck, width)
        self.scale = nn.Parameter(torch.full((1,), scale))
        _start_at_zero(self.down_proj, self.up_proj)

    def forward(self, h: Tensor) -> Tensor:
        return self.scale * self.up_proj(torch.relu(self.down_proj(self.ln(h))))


class BridgeAdapter(nn.Module):
    """scale * up(relu(down((x - mean) / spread))): pooled features [..., pooled] to an addition to joint features [...,
    embed].

    For towers without blocks. It bypasses the projection, which was trained for other images and drops what those did
    not need. ``mean`` [pooled] and ``spread`` [1] are those of the training images; they are saved with the weights and
    never trained.
    """

    def __init__(self, pooled: int, embed: int, bottleneck: int, scale: float = 1.0) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(pooled), requires_grad=False)
        self.spread = nn.Parameter(torch.ones(1), requires_grad=False)
        self.down_proj = nn.Linear(pooled, bottleneck)
        self.up_proj = nn.Linear(bottleneck, embed)
        self.scale = nn.Parameter(torch.full((1,), scale))
        _start_at_zero(self.down_proj, self.up_proj)

    @torch.no_grad()
    def set_statistics(self, features: Rows) -> None:
        """Take mean and spread from pooled features [..., pooled (+ stages)] of the training images."""
        mean, variance = (item[: len(self.mean)] for item in moments(features))
        self.mean.copy_(mean)
        self.spread.copy_(variance.mean().sqrt().clamp_min(1e-6))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.up_proj(torch.relu(self.down_proj((x - self.mean) / self.spread)))


def _start_at_zero(down: nn.Linear, up: nn.Linear) -> None:
    """AdaptFormer's start: the output is exactly zero because ``up`` is."""
    nn.init.kaiming_uniform_(down.weight, a=math.sqrt(5))
    for tensor in (down.bias, up.weight, up.bias):
        nn.init.zeros_(tensor)


def _thread() -> int:
    """Number of this thread; what torch.compile has made cannot ask for it, and one thread alone trains with that."""
    return COMPILED if torch.compiler.is_compiling() else get_ident()


class BlockAdapters(nn.Module):
    """One AdaptFormer parallel to the MLP of each of ``blocks``: x' = u + MLP(LN2(u)) + AF(u).

    The residual stream u is read as the input of the MLP branch, which starts with the block's second layer norm or, in
    blocks that normalise behind the MLP, with the MLP. The adapter's output is added to what the branch hands to the
    residual sum, so the block's own forward stays untouched. Each thread has its own stream, because a server scores
    several requests at once.

    Raises:
        ConfigError: blocks are of a kind that AdaptFormer does not know.
    """

    def __init__(self, blocks: Sequence[nn.Module], bottleneck: int, scale: float) -> None:
        super().__init__()
        branches = [_mlp_branch(block) for block in blocks]
        self.adapters = nn.ModuleList(AdaptFormer(len(norm.weight), bottleneck, scale) for norm, _, _ in branches)
        self._inactive: set[int] = set()  # threads
        self._stream: dict[tuple[int, int], Tensor] = {}  # by thread and block
        self._handles = []
        for index, (_, branch_start, branch_end) in enumerate(branches):
            self._handles += [
                branch_start.register_forward_pre_hook(self._reader(index)),
                branch_end.register_forward_hook(self._adder(index)),
            ]

    @property
    def active(self) -> bool:
        """Whether this thread's forward passes have the adapters."""
        return _thread() not in self._inactive

    @active.setter
    def active(self, active: bool) -> None:
        for thread in (get_ident(), COMPILED):
            (self._inactive.discard if active else self._inactive.add)(thread)

    def remove(self) -> None:
        """Take the adapters off the tower, so that another model may use it."""
        for handle in self._handles:
            handle.remove()

    def _reader(self, index: int) -> Any:
        def read(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            self._stream[_thread(), index] = arguments[0]

        return read

    def _adder(self, index: int) -> Any:
        def add(module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> Tensor:
            stream = self._stream.pop((_thread(), index))
            return output + self.adapters[index](stream) if self.active else output

        return add


def trains_blocks(tower: ImageTower, settings: Adapter) -> bool:
    """Whether there are adapters in the image tower's blocks, so that the tower is no longer frozen."""
    return settings.enabled and settings.in_blocks and bool(tower.blocks)


def block_adapters(tower: ImageTower, settings: Adapter) -> BlockAdapters | None:
    """Adapters in the image tower's last blocks.

    Args:
        tower: the frozen image tower; hooks are put on its blocks.
        settings: section train.adapter; ``blocks`` 0 means all.

    Returns:
        The adapters, or None where ``trains_blocks`` is false.

    Raises:
        ConfigError: the tower has fewer blocks, or blocks of a kind that AdaptFormer does not know.
    """
    if not trains_blocks(tower, settings):
        return None
    if settings.blocks > len(tower.blocks):
        raise ConfigError(
            f"train.adapter.blocks = {settings.blocks}, and the image tower has {len(tower.blocks)} blocks",
            "train.adapter.blocks",
            f"set it to at most {len(tower.blocks)}, or to 0 for all",
        )
    return BlockAdapters(tower.blocks[-settings.blocks :], settings.bottleneck, settings.scale)


def bottleneck_adapter(towers: Towers, settings: Adapter) -> AdaptFormer | BridgeAdapter | None:
    """The adapter of an image tower with none in its blocks.

    Args:
        towers: the frozen towers.
        settings: section train.adapter; ``location`` chooses the adapter.

    Returns:
        The adapter, or None where there are adapters in blocks, or they are off.
    """
    if not settings.enabled or trains_blocks(towers.image, settings):
        return None
    if settings.location == "bridge":
        return BridgeAdapter(towers.pooled_dim, towers.embed_dim, settings.bottleneck, settings.scale)
    width = towers.pooled_dim if settings.location == "pooled" else towers.embed_dim
    return AdaptFormer(width, settings.bottleneck, settings.scale)


def text_adapters(tower: TextTower, settings: Adapter) -> BlockAdapters | None:
    """Adapters in every block of a text tower.

    Args:
        tower: the frozen text tower; hooks are put on its blocks.
        settings: section train.adapter.

    Returns:
        The adapters, or None where ``towers`` in ``settings`` has no text, or adapters are off.

    Raises:
        ConfigError: the tower has no blocks that AdaptFormer knows.
    """
    if not settings.enabled or settings.towers == "image":
        return None
    if not tower.blocks:
        raise ConfigError(
            "this backbone's text tower has no blocks that AdaptFormer knows",
            "train.adapter.towers",
            "set train.adapter.towers: image",
        )
    return BlockAdapters(tower.blocks, settings.bottleneck, settings.scale)


def _mlp_branch(block: Any) -> tuple[Any, nn.Module, nn.Module]:
    """The block's second norm, and the first and last module of its MLP branch (before the residual sum)."""
    from timm.models.eva import EvaBlockPostNorm
    from timm.models.vision_transformer import ResPostBlock
    from timm.models.vision_transformer_relpos import ResPostRelPosBlock

    for name, ends in (("ln_2", ("ls_2", "mlp")), ("norm2", ("drop_path2", "ls2", "mlp"))):
        if hasattr(block, name):
            norm = getattr(block, name)
            is_post_norm = isinstance(block, EvaBlockPostNorm | ResPostBlock | ResPostRelPosBlock)
            end = next(getattr(block, end) for end in ends if hasattr(block, end))
            return norm, block.mlp if is_post_norm else norm, end
    raise ConfigError(
        f"AdaptFormer does not know blocks of type {type(block).__name__}",
        "train.adapter",
        "choose a ViT of open_clip or timm, or set train.adapter.enabled: false",
    )
