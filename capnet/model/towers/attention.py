"""Attention of open_clip's towers without copies: linear layers read memory as it lies.

`nn.MultiheadAttention` gives its projections transposed views. Each is copied before it is multiplied, which in bf16 on
a CPU took longer than the multiplication.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention of each token to those that the mask allows: softmax(q k' / sqrt(width)) v.

    On a CPU written out: torch's fused kernel took 1.3 to 6 times as long there, forward and backward, for prompts of
    12 to 77 tokens, and twice as long for a ViT's 197 in bf16.

    Args:
        q: [batch, head, token, width of a head]; fewer tokens than k and v where one attends to all.
        k, v: [batch, head, token, width of a head].
        mask: added to the scores, [token, token] or [batch, head, token, token]; -inf hides a token.

    Returns:
        As q.
    """
    if q.device.type != "cpu":
        return scaled_dot_product_attention(q, k, v, attn_mask=mask)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    return (scores if mask is None else scores + mask).softmax(dim=-1) @ v


class SelfAttention(nn.Module):
    """The same function as an ``nn.MultiheadAttention`` within one sequence; its tensors keep their names."""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.heads = attention.num_heads
        self.in_proj_weight, self.in_proj_bias = attention.in_proj_weight, attention.in_proj_bias
        self.out_proj = attention.out_proj

    def forward(
        self, x: Tensor, key: Tensor, value: Tensor, need_weights: bool, attn_mask: Tensor | None
    ) -> tuple[Tensor, None]:
        """Attend within a sequence; called as open_clip's blocks call ``nn.MultiheadAttention``.

        Args:
            x: [batch, token, width].
            key, value: x again, not read.
            need_weights: not read.
            attn_mask: added to the scores, [token, token] or [batch * head, token, token].

        Returns:
            [batch, token, width], and None for the weights.
        """
        batch, tokens, width = x.shape
        qkv = linear(x, self.in_proj_weight, self.in_proj_bias).view(batch, tokens, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # [batch, head, token, width of a head]
        mask = None if attn_mask is None else attn_mask.to(q.dtype)
        if mask is not None and mask.dim() == 3:  # [batch * head, token, token]
            mask = mask.view(batch, self.heads, tokens, tokens)
        attended = attend(q, k, v, mask)
        return self.out_proj(attended.transpose(1, 2).reshape(batch, tokens, width)), None


class AttentionPool(nn.Module):
    """The same function as the attention pooling of CLIP's ResNets, which attends from every cell and then takes the
    mean's row; this one attends from the mean alone.
    """

    def __init__(self, pool: Any) -> None:
        super().__init__()
        self.heads, self.positional_embedding = pool.num_heads, pool.positional_embedding
        self.q_proj, self.k_proj, self.v_proj, self.c_proj = pool.q_proj, pool.k_proj, pool.v_proj, pool.c_proj

    def forward(self, cells: Tensor) -> Tensor:
        """Pooled features [image, embed] of ``cells`` [image, width, row, column]."""
        x = cells.flatten(2).transpose(1, 2)  # [image, cell, width]
        x = torch.cat([x.mean(dim=1, keepdim=True), x], dim=1) + self.positional_embedding.to(x.dtype)
        projected = (self.q_proj(x[:, :1]), self.k_proj(x), self.v_proj(x))
        q, k, v = (item.unflatten(2, (self.heads, -1)).transpose(1, 2) for item in projected)
        return self.c_proj(attend(q, k, v).transpose(1, 2).flatten(1))


def without_copies(tower: Any) -> Any:
    """Exchange the attention of open_clip's blocks and ResNets within ``tower``; gives ``tower`` back."""
    from open_clip.transformer import ResidualAttentionBlock

    for block in tower.modules():
        if isinstance(block, ResidualAttentionBlock) and not hasattr(block, "ln_1_kv"):
            block.attn = SelfAttention(block.attn)
    if hasattr(tower, "attnpool"):
        tower.attnpool = AttentionPool(tower.attnpool)
    return tower
