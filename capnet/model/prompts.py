"""Class-specific soft prompts: learnable context vectors in front of each class name (CoOp, Zhou et al., IJCV 2022;
class-specific as in LMPT, Xia et al., 2024).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from capnet.config import Prompt
from capnet.model.towers.text import TextTower

EXACT: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}  # towers draw nothing at random
PLACEHOLDER = "x"  # one token in every tokenizer used here; its embedding is replaced


class PromptLearner(nn.Module):
    """Embeds ``[context] class name.`` with learnable context [class or 1, length, width]."""

    tokens: Tensor  # [class, length]

    def __init__(self, text: TextTower, prompt_names: Sequence[str], settings: Prompt) -> None:
        super().__init__()
        words = settings.phrase if settings.init == "phrase" else " ".join([PLACEHOLDER] * settings.length)
        with torch.no_grad():
            texts = [f"{words} {name}." for name in prompt_names]
            tokens = text.tokenize(texts)
            start, length = context_position(text, words)
            if settings.init == "phrase":
                context = text.embed(tokens[:, start : start + length].to(next(text.parameters()).device)).cpu()
            else:
                width = text.word_embedding.weight.shape[1]
                context = torch.randn(len(tokens), length, width) * 0.02
            if settings.shared:
                context = context[:1]
        text.refuse_cut(texts, prompt_names, "train.prompt")
        self.context = nn.Parameter(context.clone())
        self.register_buffer("tokens", tokens, persistent=False)
        self.start, self.chunk = start, settings.chunk

    def forward(self, text: TextTower, classes: Tensor | None = None) -> Tensor:
        """Encode the prompts of classes.

        Of more than ``chunk`` classes the activations of one chunk are held at a time: of the last one, where the
        gradient starts. Those of the others are computed again when it reaches them.

        Args:
            text: the text tower.
            classes: their numbers, int64 [class]; None: all.

        Returns:
            Un-normalised text features [class, embed].
        """
        tokens, context = self.tokens, self.context.expand(len(self.tokens), -1, -1)
        if classes is not None:
            tokens, context = tokens[classes], context[classes]
        rest = len(tokens) % self.chunk
        sizes = [rest] if rest else []
        sizes += [self.chunk] * (len(tokens) // self.chunk)
        parts = list(zip(torch.split(tokens, sizes), torch.split(context, sizes), strict=True))
        again = [checkpoint(self._encode, text, *part, **EXACT) for part in parts[:-1]]
        return torch.cat([*again, self._encode(text, *parts[-1])])

    def _encode(self, text: TextTower, tokens: Tensor, context: Tensor) -> Tensor:
        """Features [class, embed] of ``context`` [class, length, width] at its position in ``tokens``."""
        fixed = text.embed(tokens)  # [class, length, width], no gradient
        context = context.to(fixed)
        embeddings = torch.cat([fixed[:, : self.start], context, fixed[:, self.start + context.shape[1] :]], dim=1)
        return text.encode(embeddings, tokens)


def context_position(text: TextTower, words: str) -> tuple[int, int]:
    """Where the context stands in a tokenized text.

    Args:
        text: whose tokenizer is used.
        words: the context in front of a class name.

    Returns:
        Position of its first token, and number of tokens.
    """
    full = text.tokenizer([words, f"{words} cat", f"{words} dog"])
    start = int((text.tokenizer(["cat"])[0] != text.tokenizer(["dog"])[0]).nonzero()[0])  # special tokens in front
    end = int((full[1] != full[2]).nonzero()[0])
    return start, end - start
