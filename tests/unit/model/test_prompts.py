"""Prompts in chunks give the same features and gradients, and hold one chunk's activations."""

import pytest
import torch

from capnet.config import Prompt
from capnet.model.prompts import PromptLearner

NAMES = ["dog", "traffic light", "cat", "bus", "red car", "horse", "tree"]


def learner(text, shared=False, chunk=256, names=NAMES):
    torch.manual_seed(2)
    return PromptLearner(text, names, Prompt(init="normal", length=3, shared=shared, chunk=chunk))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny-clip", "tiny-not-causal", "tiny-biomed"])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("chunk", [1, 3, 7])
def test_chunks_change_neither_features_nor_gradients(name, shared, chunk, make_towers):
    text = make_towers(name).text
    whole, parts = learner(text, shared), learner(text, shared, chunk)
    weight = torch.randn(len(NAMES), 1)
    for prompt in (whole, parts):
        (prompt(text) * weight).square().sum().backward()
    torch.testing.assert_close(parts(text), whole(text), atol=1e-5, rtol=1e-5)
    scale = whole.context.grad.abs().max()
    torch.testing.assert_close(parts.context.grad / scale, whole.context.grad / scale, atol=1e-5, rtol=0)


def test_chunks_bound_what_is_held_between_forward_and_backward(make_towers):
    text = make_towers("tiny-clip").text
    saved = {}
    for n_classes, chunk in ((8, 8), (64, 64), (64, 8)):
        held = []
        prompt = learner(text, chunk=chunk, names=[f"thing {number:03}" for number in range(n_classes)])
        with torch.autograd.graph.saved_tensors_hooks(lambda tensor, held=held: held.append(tensor) or tensor, id):
            prompt(text)
        saved[n_classes, chunk] = sum(tensor.numel() for tensor in held if tensor.dim() > 1 and tensor.requires_grad)
    assert saved[64, 64] > 5 * saved[8, 8]
    assert saved[64, 8] < 1.5 * saved[8, 8]
