"""The parts of the method that the model card names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from capnet.promotion.policy import Policy
from capnet.registry.candidate import read_candidate
from capnet.registry.cards import model_card

ARXIV = "[arXiv:2511.20641](https://arxiv.org/abs/2511.20641)"


def test_the_model_card_names_the_parts_that_were_switched_on(make_outputs: Callable[..., dict[str, Path]]) -> None:
    candidate = read_candidate(**make_outputs())
    parts = "class-specific soft prompts, a graph convolutional network over the label graph, adapters"
    assert f"{ARXIV}: frozen CLIP-like towers with {parts}.\n" in model_card(candidate, "referenced", Policy())
    enabled = {"gcn": {"enabled": False}, "prompt": {"enabled": True}, "class_head": {"enabled": True}}
    text = model_card(replace(candidate, config={**candidate.config, "train": enabled}), "referenced", Policy())
    assert f"{ARXIV}: frozen CLIP-like towers with class-specific soft prompts, a class-specific head.\n" in text
