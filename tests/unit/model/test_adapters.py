"""AdaptFormer against the reference numbers, on open_clip's and timm's blocks."""

import json
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
import timm
import torch
from open_clip.transformer import VisionTransformer
from timm.models.eva import EvaBlockPostNorm
from timm.models.vision_transformer import ResPostBlock
from timm.models.vision_transformer_relpos import ResPostRelPosBlock
from torch import nn

from capnet.errors import ConfigError
from capnet.model.adapters import AdaptFormer, BlockAdapters, BridgeAdapter


@pytest.fixture(scope="module")
def reference(shared):
    cases = json.loads((shared / "reference" / "adaptformer_fixture.json").read_text())["cases"]
    return {case["name"]: case for case in cases}


def doubles(values):
    return torch.tensor(values, dtype=torch.float64)


def test_module_and_gradient_match_the_reference(reference):
    case = reference["adaptformer_module"]
    module = AdaptFormer(case["in_dim"], case["bottleneck_dim"]).double()
    module.load_state_dict({name: doubles(value) for name, value in case["params"].items()})
    tokens = doubles(case["input"]).requires_grad_()
    output = module(tokens)
    output.sum().backward()
    np.testing.assert_allclose(output.detach(), case["output"], atol=1e-12)
    np.testing.assert_allclose(tokens.grad, case["grad_of_sum_wrt_input"], atol=1e-12)


def test_a_clip_vit_with_adapters_matches_the_reference(reference):
    case = reference["tiny_clip_vit_with_adaptformer"]
    shape = case["vit"]

    class QuickGelu(nn.Module):
        def forward(self, x):
            return x * torch.sigmoid(1.702 * x)

    vit = VisionTransformer(
        image_size=shape["input_resolution"],
        patch_size=shape["patch_size"],
        width=shape["width"],
        layers=shape["layers"],
        heads=shape["heads"],
        mlp_ratio=4.0,
        output_dim=shape["output_dim"],
        act_layer=QuickGelu,
    ).double()
    vit.load_state_dict({name: doubles(value) for name, value in case["vit_params"].items()})
    vit.eval()
    image = doubles(case["image"])
    np.testing.assert_allclose(vit(image).detach(), case["projected_without_adapter"], atol=1e-10)
    tuner = {name.removeprefix("adaptformer_list."): doubles(value) for name, value in case["tuner_params"].items()}
    bottleneck = tuner["0.down_proj.weight"].shape[0]
    adapters = BlockAdapters(list(vit.transformer.resblocks), bottleneck, 1.0).double()
    adapters.adapters.load_state_dict(tuner)
    np.testing.assert_allclose(vit(image).detach(), case["projected_with_adapter"], atol=1e-10)
    adapters.active = False
    np.testing.assert_allclose(vit(image).detach(), case["projected_without_adapter"], atol=1e-10)


def test_threads_share_neither_the_stream_of_their_images_nor_whether_adapters_are_on():
    torch.manual_seed(0)
    vit = VisionTransformer(32, 16, width=32, layers=2, heads=2, mlp_ratio=4.0, output_dim=16).eval()
    adapters = BlockAdapters(list(vit.transformer.resblocks), 4, 1.0)
    for adapter in adapters.adapters:
        nn.init.normal_(adapter.up_proj.weight)

    @torch.no_grad()
    def features(image, active):
        adapters.active = active
        return vit(image)

    cases = list(zip(torch.randn(3, 1, 3, 32, 32), (True, True, False), strict=True))
    expected = [features(*case) for case in cases]
    assert not torch.equal(features(cases[2][0], True), expected[2])
    together = Barrier(3)
    vit.transformer.resblocks[0].ln_2.register_forward_pre_hook(lambda *arguments: print(together.wait(20)))
    with ThreadPoolExecutor(3) as pool:
        result = list(pool.map(lambda case: features(*case), cases))
    assert all(map(torch.equal, result, expected))


def test_adapter_is_exactly_zero_at_the_start_and_learns():
    module = AdaptFormer(8, 4)
    h = torch.randn(2, 3, 8)
    assert (module(h) == 0).all()
    module(h).sum().backward()
    assert (module.up_proj.bias.grad != 0).any()


def test_the_bridge_centres_on_the_training_features_and_starts_at_zero():
    generator = np.random.default_rng(0)
    features = generator.normal(3.0, 2.0, (50, 4, 6)).astype(np.float32)  # [row, view, pooled]
    bridge = BridgeAdapter(6, 5, 3, scale=0.5)
    bridge.set_statistics(torch.from_numpy(features))
    other = torch.from_numpy(generator.normal(3.0, 2.0, (7, 6)).astype(np.float32))
    assert (bridge(other) == 0).all()
    nn.init.normal_(bridge.up_proj.weight)
    rows = features.reshape(-1, 6).astype(np.float64)
    centred = (other.numpy() - rows.mean(axis=0)) / (rows - rows.mean(axis=0)).std()
    weight = {name: tensor.detach().numpy() for name, tensor in bridge.named_parameters()}
    expected = 0.5 * np.maximum(centred @ weight["down_proj.weight"].T, 0) @ weight["up_proj.weight"].T
    np.testing.assert_allclose(bridge(other).detach(), expected, atol=1e-5)
    bridge(other).sum().backward()
    assert bridge.mean.grad is None
    assert bridge.spread.grad is None


def test_equal_training_features_do_not_divide_by_zero():
    bridge = BridgeAdapter(3, 2, 2)
    bridge.set_statistics(torch.ones(4, 2, 3))
    nn.init.normal_(bridge.up_proj.weight)
    assert torch.isfinite(bridge(torch.ones(1, 3))).all()


@pytest.mark.parametrize("scale", [1.0, 0.2])
def test_timm_blocks_get_the_adapter_beside_their_mlp(scale):
    torch.manual_seed(0)
    vit = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2, num_classes=0).eval()
    image = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        before = vit(image)
        adapters = BlockAdapters(list(vit.blocks), 4, scale)
        assert torch.equal(vit(image), before)
        for adapter in adapters.adapters:
            nn.init.normal_(adapter.up_proj.weight)
        # written out: x' = u + MLP(LN2(u)) + AF(u)
        x = vit.norm_pre(vit._pos_embed(vit.patch_embed(image)))
        for block, adapter in zip(vit.blocks, adapters.adapters, strict=True):
            u = x + block.attn(block.norm1(x))
            hidden = block.mlp.fc2(
                block.mlp.act(
                    block.mlp.fc1(
                        nn.functional.layer_norm(u, (192,), block.norm2.weight, block.norm2.bias, block.norm2.eps)
                    )
                )
            )
            x = u + hidden + adapter(u)
        expected = vit.forward_head(vit.norm(x))
        assert torch.allclose(vit(image), expected, atol=1e-4)
        adapters.remove()
        assert torch.equal(vit(image), before)


def test_unknown_blocks_are_refused():
    with pytest.raises(ConfigError, match="Linear"):
        BlockAdapters([nn.Linear(2, 2)], 1, 1.0)


@pytest.mark.parametrize("kind", [EvaBlockPostNorm, ResPostBlock, ResPostRelPosBlock])
def test_blocks_that_normalise_behind_the_mlp_get_the_adapter_beside_both(kind):
    """Those of EVA02-E-14: x' = u + LN2(MLP(u)) + AF(u)."""
    torch.manual_seed(0)
    block, x = kind(16, 2).eval(), torch.randn(2, 5, 16)
    with torch.no_grad():
        block.norm2.weight.fill_(2.0)
        u = x + block.norm1(block.attn(x))
        plain = u + block.norm2(block.mlp(u))
        (adapter,) = BlockAdapters([block], 4, 1.0).adapters
        nn.init.normal_(adapter.up_proj.weight)
        torch.testing.assert_close(block(x), plain + adapter(u))
