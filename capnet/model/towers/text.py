"""Three kinds of text tower: causal with EOT (CLIP), masked Hugging Face, and others, all fed with embeddings.

Soft prompts replace some word embeddings, so each tower takes tokens and their embeddings. Cutting the text behind
its longest prompt is exact for causal and for masked towers; other towers always see their full length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from capnet.errors import ConfigError
from capnet.model.towers.attention import without_copies

Tokenizer = Callable[..., Tensor]


class TextTower(nn.Module):
    """``tokenize`` texts -> [text, length]; ``embed`` tokens -> [text, length, width]; ``encode`` -> [text, embed]."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.tokenizer = tokenizer

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Token ids [text, length], cut to the longest text where that leaves the result unchanged."""
        tokens = self.tokenizer(list(texts))
        return tokens[:, : self.used_length(tokens)]

    def used_length(self, tokens: Tensor) -> int:
        """How many columns of ``tokens`` [text, length] the features depend on."""
        return tokens.shape[1]

    def refuse_cut(self, texts: Sequence[str], names: Sequence[str], setting: str) -> None:
        """A text longer than the tower's context would silently lose the end of its class name.

        Args:
            texts: one for each class.
            names: of the classes, for the error.
            setting: that says what stands around a name in its text.

        Raises:
            ConfigError: a text is that long; names the first classes.
        """
        length = self.tokenizer(["cat"]).shape[1]
        # a text that is cut also fills a context one token longer, where another word behind it changes nothing
        own, more = (self.tokenizer([text + end for text in texts], length + 1) for end in ("", " cat"))
        cut = [name for name, a, b in zip(names, own, more, strict=True) if bool((a == b).all())]
        if cut:
            raise ConfigError(
                f"prompts are longer than the text tower's {length} tokens: {', '.join(cut[:5])}",
                f"classes.csv, {setting}",
                f"shorten prompt_name in data/classes.csv or {setting}",
            )

    def embed(self, tokens: Tensor) -> Tensor:
        """Word embeddings [text, length, width] of ``tokens`` [text, length]."""
        return self.word_embedding(tokens)

    @property
    def word_embedding(self) -> nn.Embedding:
        """The table of word embeddings; raises AttributeError where a tower has none."""
        raise AttributeError("a text tower names its word embedding")

    @property
    def blocks(self) -> list[nn.Module]:
        """Blocks to which AdaptFormer may be added; none where it cannot."""
        return []

    def encode(self, embeddings: Tensor, tokens: Tensor) -> Tensor:
        """Un-normalised text features.

        Args:
            embeddings: [text, length, width], those of ``embed`` or others instead of some of them.
            tokens: [text, length], for masks and the position of the feature.

        Returns:
            [text, embed].

        Raises:
            AttributeError: a tower encodes none.
        """
        raise AttributeError("a text tower encodes embeddings")

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Un-normalised text features [text, embed] of plain texts."""
        tokens = self.tokenize(texts).to(next(self.parameters()).device)
        return self.encode(self.embed(tokens), tokens)


class OpenClipTextTower(TextTower):
    """What open_clip's own text transformers share."""

    def __init__(self, tower: Any, tokenizer: Tokenizer) -> None:
        super().__init__(tokenizer)
        self.tower = without_copies(pooled_only(tower))

    @property
    def word_embedding(self) -> nn.Embedding:
        return self.tower.token_embedding

    @property
    def blocks(self) -> list[nn.Module]:
        return list(self.tower.transformer.resblocks)


class CausalTextTower(OpenClipTextTower):
    """CLIP's own: causal mask, feature of the end-of-text token. What follows that token cannot change it."""

    def __init__(self, tower: Any, tokenizer: Tokenizer) -> None:
        super().__init__(tower, tokenizer)
        self.pool_type, self.end_id = tower.pool_type, tower.eos_id

    def end_positions(self, tokens: Tensor) -> Tensor:
        """Index [text] of the end-of-text token."""
        return tokens.argmax(dim=1) if self.pool_type == "argmax" else tokens.eq(self.end_id).int().argmax(dim=1)

    def used_length(self, tokens: Tensor) -> int:
        return int(self.end_positions(tokens).max()) + 1

    def encode(self, embeddings: Tensor, tokens: Tensor) -> Tensor:
        length = tokens.shape[1]
        x = embeddings + self.tower.positional_embedding[:length].to(embeddings)
        x = self.tower.transformer(x, attn_mask=self.tower.attn_mask[:length, :length])
        x = self.tower.ln_final(x)
        x = x[torch.arange(len(x), device=x.device), self.end_positions(tokens)]
        projection = self.tower.text_projection
        if projection is None:
            return x
        return projection(x) if isinstance(projection, nn.Module) else x @ projection


class MaskedTextTower(TextTower):
    """A Hugging Face encoder inside open_clip: padding is masked, embeddings go in through ``inputs_embeds``."""

    def __init__(self, tower: Any, tokenizer: Tokenizer) -> None:
        super().__init__(tokenizer)
        self.tower = tower
        tower.transformer.set_attn_implementation("eager")  # torch's fused kernel is slow for short texts on a CPU

    @property
    def word_embedding(self) -> nn.Embedding:
        return self.tower.transformer.get_input_embeddings()

    def used_length(self, tokens: Tensor) -> int:
        return max(1, int((tokens != self.tower.config.pad_token_id).sum(dim=1).max()))

    def encode(self, embeddings: Tensor, tokens: Tensor) -> Tensor:
        mask = (tokens != self.tower.config.pad_token_id).long()
        # in the form that is added to scores, [text, 1, 1, length]: transformers would fetch values of a 0/1 mask
        added = (1 - mask)[:, None, None].to(embeddings) * torch.finfo(embeddings.dtype).min
        output = self.tower.transformer(inputs_embeds=embeddings, attention_mask=added)
        return self.tower.proj(self.tower.pooler(output, mask))


class OtherTextTower(OpenClipTextTower):
    """Any other tower (SigLIP is not causal): its own forward runs at full length with the embeddings put in."""

    def encode(self, embeddings: Tensor, tokens: Tensor) -> Tensor:
        handle = self.word_embedding.register_forward_hook(lambda module, arguments, output: embeddings.to(output))
        try:
            return self.tower(tokens)
        finally:
            handle.remove()


def pooled_only(tower: Any) -> Any:
    """CoCa's towers return what they attended to as well, for its captions; here they do not."""
    if getattr(tower, "output_tokens", False):
        tower.output_tokens = False
    return tower


def make_text_tower(model: Any, tokenizer: Tokenizer) -> TextTower:
    """The text tower of an open_clip model; CLIP keeps its text parts on the model itself.

    Args:
        model: open_clip's CLIP or CustomTextCLIP.
        tokenizer: texts and, where it is another than the tower's, the length -> token ids [text, length].
    """
    tower = model.text if hasattr(model, "text") else _TextParts(model)
    if hasattr(tower, "pooler"):
        return MaskedTextTower(tower, tokenizer)
    causal = tower.attn_mask is not None and tower.pool_type in ("argmax", "eos")
    plain = getattr(tower, "cls_emb", None) is None and not getattr(tower, "use_pad_mask", False)
    return CausalTextTower(tower, tokenizer) if causal and plain else OtherTextTower(tower, tokenizer)


class _TextParts(nn.Module):
    """CLIP's text modules without its image tower, so that moving or hashing one does not touch the other."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        for name in ("transformer", "token_embedding", "ln_final", "positional_embedding", "text_projection"):
            setattr(self, name, getattr(model, name))
        self.register_buffer("attn_mask", model.attn_mask, persistent=False)
        self.pool_type = self.text_pool_type = model.text_pool_type
        self.eos_id = self.text_eos_id = model.text_eos_id

    def forward(self, tokens: Tensor) -> Tensor:
        from open_clip import CLIP

        return CLIP.encode_text(self, tokens)
