"""Towers attend as open_clip's own do, value and gradient, and copy nothing for it."""

import open_clip
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from capnet.config import Adapter
from capnet.model.adapters import block_adapters
from capnet.model.towers import ImageTower
from capnet.model.towers.text import make_text_tower
from tests.unit.model import tiny

VARIANTS = {
    "tiny-clip": {},
    "tiny-resnet": {},
    "tiny-coca": {},
    "tiny-clip, quick": {"force_quick_gelu": True},
    "tiny-clip, layer scale": {"ls_init_value": 0.3},
}


class ExpandedProducts(TorchDispatchMode):
    """Counts batched products with one matrix for the whole batch: linear layers whose input had to be copied."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        if function.overloadpacket.__name__ == "bmm":
            self.count += any(matrix.stride(0) == 0 for matrix in arguments)
        return function(*arguments, **(options or {}))


@pytest.fixture
def models(tmp_path):
    """Two equal models by open_clip, of which one is taken apart into towers."""

    def make(variant, dtype=torch.float64):
        name = variant.split(",")[0]
        tiny.register(name, tmp_path)
        options = dict(VARIANTS[variant])
        config = open_clip.get_model_config(name)
        if "ls_init_value" in options:
            options = {"vision_cfg": config["vision_cfg"] | options, "text_cfg": config["text_cfg"] | options}
        made = []
        for _ in range(2):
            torch.manual_seed(3)
            model = open_clip.create_model(name, pretrained=None, pretrained_text=False, **options).eval()
            made.append(model.requires_grad_(False).to(dtype))
        return made

    return make


def with_gradient(function, embeddings):
    embeddings = embeddings.clone().requires_grad_()
    output = function(embeddings)
    output.square().sum().backward()
    return output.detach(), embeddings.grad


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_image_tower_gives_open_clips_features_and_gradients(variant, models):
    own, other = models(variant)
    size = own.visual.image_size if isinstance(own.visual.image_size, int) else own.visual.image_size[0]
    images = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    tower = ImageTower(own.visual)
    result = with_gradient(tower.pooled, images)
    expected = with_gradient(lambda x: other.encode_image(x, normalize=False), images)
    for ours, theirs in zip(result, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=1e-9)
    assert own.visual.state_dict().keys() == other.visual.state_dict().keys()


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "tiny-resnet"])
def test_the_text_tower_gives_open_clips_features_and_gradients_of_the_embeddings(variant, models):
    own, other = models(variant)
    tower = make_text_tower(own, open_clip.get_tokenizer(variant.split(",")[0]))
    texts = ["a photo of a dog.", "a traffic light"]
    tokens, full = tower.tokenize(texts), tower.tokenizer(texts)

    def theirs(embeddings):
        embedding = getattr(other, "text", other).token_embedding
        handle = embedding.register_forward_hook(lambda *_: embeddings)
        try:
            return other.encode_text(full, normalize=False)
        finally:
            handle.remove()

    features, gradient = with_gradient(lambda x: tower.encode(x, tokens), tower.embed(tokens).detach())
    expected, all_gradients = with_gradient(theirs, tower.embed(full).detach())
    torch.testing.assert_close(features, expected, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(gradient, all_gradients[:, : tokens.shape[1]], atol=1e-9, rtol=1e-9)


def test_adapters_in_blocks_do_what_they_do_around_open_clips_attention(models):
    own, other = models("tiny-clip")
    tower = ImageTower(own.visual)
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    torch.manual_seed(5)
    result = block_adapters(tower, Adapter(bottleneck=4)).double()
    for adapter in result.adapters:
        nn.init.normal_(adapter.up_proj.weight)
    plain = nn.Module()
    plain.blocks = list(other.visual.transformer.resblocks)
    expected = block_adapters(plain, Adapter(bottleneck=4)).double()
    expected.load_state_dict(result.state_dict())
    torch.testing.assert_close(tower.pooled(images), other.visual(images), atol=1e-9, rtol=1e-9)
    assert not torch.allclose(tower.pooled(images), models("tiny-clip")[0].visual(images), atol=1e-3)


@pytest.mark.parametrize("bf16", [False, True])
def test_no_linear_layer_multiplies_a_transposed_view(bf16, models):
    own, other = models("tiny-clip", torch.float32)
    tower = make_text_tower(own, open_clip.get_tokenizer("tiny-clip"))
    tokens = tower.tokenize(["a dog", "a cat"])
    length = tokens.shape[1]
    counts = []
    for encode in (
        lambda x: tower.encode(x, tokens),
        lambda x: other.transformer(x, attn_mask=other.attn_mask[:length, :length]),
    ):
        with ExpandedProducts() as products, torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            with_gradient(encode, tower.embed(tokens).detach())
        counts.append(products.count)
    assert counts[0] == 0
    assert counts[1] > 0, "open_clip attends without copies now: capnet/model/towers/attention.py may go"
