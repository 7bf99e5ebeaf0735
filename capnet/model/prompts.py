"""Class-specific soft prompts: learnable context vectors in front of each class name (CoOp, Zhou et al., IJCV 2022;
class-specific as in LMPT, Xia et al., 2024).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from capnet.config import Prompt
from capnet.errors import ConfigError
from capnet.model.towers.text import TextTower

PLACEHOLDER = "x"  # one token in every tokenizer used here; its embedding is replaced


class PromptLearner(nn.Module):
    """Embeds ``[context] class name.`` with learnable context [class or 1, length, width]."""

    def __init__(self, text: TextTower, prompt_names: Sequence[str], settings: Prompt) -> None:
        super().__init__()
        words = settings.phrase if settings.init == "phrase" else " ".join([PLACEHOLDER] * settings.length)
        with torch.no_grad():
            tokens = text.tokenize([f"{words} {name}." for name in prompt_names])
            start, length = context_position(text, words)
            if settings.init == "phrase":
                context = text.embed(tokens[:, start : start + length].to(next(text.parameters()).device)).cpu()
            else:
                context = torch.randn(len(tokens), length, _width(text)) * 0.02
            if settings.shared:
                context = context[:1]
        _refuse_cut_names(text, tokens, words, prompt_names)
        self.context = nn.Parameter(context.clone())
        self.register_buffer("tokens", tokens, persistent=False)
        self.start = start

    def forward(self, text: TextTower) -> Tensor:
        """Un-normalised text features [class, embed]."""
        tokens = self.tokens
        assert isinstance(tokens, Tensor)
        fixed = text.embed(tokens)  # [class, length, width], no gradient
        context = self.context.to(fixed).expand(len(tokens), -1, -1)
        embeddings = torch.cat([fixed[:, : self.start], context, fixed[:, self.start + context.shape[1] :]], dim=1)
        return text.encode(embeddings, tokens)


def context_position(text: TextTower, words: str) -> tuple[int, int]:
    """Where ``words`` stand in a tokenized text: first position and number of tokens."""
    full = text.tokenizer([words, f"{words} cat", f"{words} dog"])
    start = int((text.tokenizer(["cat"])[0] != text.tokenizer(["dog"])[0]).nonzero()[0])  # special tokens in front
    end = int((full[1] != full[2]).nonzero()[0])
    return start, end - start


def _width(text: TextTower) -> int:
    weight = text.word_embedding.weight
    assert isinstance(weight, Tensor)
    return int(weight.shape[1])


def _refuse_cut_names(text: TextTower, tokens: Tensor, words: str, prompt_names: Sequence[str]) -> None:
    """A prompt longer than the tower's context would silently lose the end of its class name."""
    longer = text.tokenizer([f"{words} {name}. cat" for name in prompt_names])
    shorter = text.tokenizer([f"{words} {name}." for name in prompt_names])
    cut = [name for name, a, b in zip(prompt_names, longer, shorter, strict=True) if bool((a == b).all())]
    if cut:
        raise ConfigError(
            f"prompts are longer than the text tower's {text.tokenizer(['cat']).shape[1]} tokens: {', '.join(cut[:5])}",
            "classes.csv, train.prompt",
            "shorten prompt_name in data/classes.csv or train.prompt",
        )
