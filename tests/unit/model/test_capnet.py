"""The module: starts at zero-shot, trains only its own parts, saves megabytes, averages views as documented."""

import pytest
import torch

from capnet.config import Train
from capnet.errors import ContractError
from capnet.model.capnet import CapNet
from capnet.model.graph import adjacency, cosine_similarity

NAMES = ["dog", "cat", "traffic light", "bus"]
OFF = {"enabled": False}


def build(towers, **settings):
    torch.manual_seed(0)
    with torch.no_grad():
        text = towers.text([f"a photo of a {name}." for name in NAMES])
    graph = adjacency(cosine_similarity(text), 1.0, 0.2, 0.2, "linear")
    return CapNet(towers, NAMES, graph, text, Train.model_validate(settings))


def images(towers, count=3):
    return torch.randn(
        count, 3, towers.preprocess.size, towers.preprocess.size, generator=torch.Generator().manual_seed(1)
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny-clip", "tiny-not-causal", "tiny-biomed"])
def test_before_training_every_part_leaves_zero_shot_unchanged(name, make_towers):
    towers = make_towers(name)
    model = build(towers, prompt={"phrase": "a photo of a"})
    pixels = images(towers)
    with torch.no_grad():
        v = torch.nn.functional.normalize(towers.image.project(towers.image.pooled(pixels)), dim=-1)
        t = torch.nn.functional.normalize(towers.text([f"a photo of a {name}." for name in NAMES]), dim=-1)
        assert torch.allclose(model(pixels), 10.0 * v @ t.T - 3.0, atol=1e-4)


def test_zero_shot_ranks_as_plain_cosine_even_with_the_centring_projector(lit):
    model = build(lit)
    pixels = images(lit, 6)
    with torch.no_grad():
        pooled = model.pooled(pixels)
        zero_shot = model.members(pooled, model.class_features(), pooled)["zero_shot"]
        cosine = (
            torch.nn.functional.normalize(lit.image.project(pooled), dim=-1)
            @ torch.nn.functional.normalize(lit.text([f"a photo of a {name}." for name in NAMES]), dim=-1).T
        )
    assert torch.equal(zero_shot.argsort(dim=0), cosine.argsort(dim=0))


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({}, {"prompt", "gcn", "block_adapters", "logit_scale", "logit_bias"}),
        ({"prompt": OFF, "gcn": OFF}, {"block_adapters", "logit_scale", "logit_bias"}),
        ({"gcn": OFF, "adapter": OFF, "head": {"bias": False}}, {"prompt", "logit_scale"}),
        ({"prompt": OFF, "gcn": OFF, "adapter": OFF}, {"logit_scale", "logit_bias"}),
        (
            {"adapter": {"towers": "image+text"}},
            {"prompt", "gcn", "block_adapters", "text_adapters", "logit_scale", "logit_bias"},
        ),
    ],
)
def test_every_part_is_a_switch_and_only_its_tensors_are_trained(settings, parts, make_towers):
    towers = make_towers("tiny-clip")
    model = build(towers, **settings)
    before = {name: tensor.clone() for name, tensor in towers.image.state_dict().items()}
    words = {name: tensor.clone() for name, tensor in towers.text.state_dict().items()}
    assert {name.split(".")[0] for name in model.trained_tensors()} == parts
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):  # the second step reaches what starts behind a zero layer
        model(images(towers)).square().mean().backward()
        optimiser.step()
    missing = [
        name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.abs().sum()
    ]
    assert missing == []
    assert all(torch.equal(tensor, before[name]) for name, tensor in towers.image.state_dict().items())
    assert all(torch.equal(tensor, words[name]) for name, tensor in towers.text.state_dict().items())


def test_trained_tensors_load_back_and_others_are_refused(make_towers):
    towers = make_towers("tiny-clip")
    model = build(towers)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
        expected = model(images(towers))
    tensors = model.trained_tensors()
    model.release_towers()
    other = build(towers)
    other.load_trained(tensors, "model.safetensors")
    with torch.no_grad():
        assert torch.equal(other(images(towers)), expected)
    other.release_towers()
    with pytest.raises(ContractError, match=r"gcn\.weights"):
        build(towers, gcn=OFF).load_trained(tensors, "model.safetensors")


def test_a_probe_of_an_older_model_scores_features_as_they_are(make_towers):
    """It has no centre: a registered champion gives the scores that it was measured with."""
    towers = make_towers("tiny-clip")
    model = build(towers, blend="held_out")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    tensors, pooled = model.trained_tensors(), torch.randn(4, towers.pooled_dim)
    units = torch.nn.functional.normalize(pooled - tensors["linear_probe.centre"], dim=1)
    weight, bias = tensors["linear_probe.weight"], tensors["linear_probe.bias"]
    torch.testing.assert_close(model.linear_probe(pooled), units @ weight.T + bias)
    model.release_towers()
    older = build(towers, blend="held_out")
    older.load_trained({k: v for k, v in tensors.items() if k != "linear_probe.centre"}, "model.safetensors")
    torch.testing.assert_close(older.linear_probe(pooled), pooled @ weight.T + bias)
    assert "linear_probe.centre" not in older.trained_tensors()


def test_views_are_averaged_as_logits_or_as_probabilities_and_mixed_with_zero_shot(make_towers):
    towers = make_towers("tiny-clip")
    model = build(towers, zero_shot_weight=0.25, head={"bias_init": 0.5})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    classes = model.class_features()
    views = torch.randn(2, 5, towers.pooled_dim)
    trained = torch.stack([model.logits(model.image_features(views[:, i]), classes.refined) for i in range(5)]).double()
    plain = torch.stack(
        [model.logits(torch.nn.functional.normalize(views[:, i], dim=-1), classes.zero_shot) for i in range(5)]
    ).double()
    mixed = 0.75 * trained + 0.25 * plain
    served, zero_shot = model.ensemble(views, classes, "logits", views)
    assert torch.allclose(served, mixed.mean(dim=0).sigmoid().float(), atol=1e-6)
    assert torch.allclose(zero_shot, plain.mean(dim=0).sigmoid().float(), atol=1e-6)
    assert torch.allclose(
        model.ensemble(views, classes, "probabilities", views)[0], mixed.sigmoid().mean(dim=0).float(), atol=1e-6
    )


@pytest.mark.parametrize("head", [False, True])
def test_where_a_blend_chooses_the_share_of_zero_shot_the_setting_has_no_effect(head, make_towers):
    """Epochs are chosen by what is served: its description says where blend is none."""
    towers, settings = make_towers("tiny-resnet"), {"blend": "held_out", "class_head": {"enabled": head}}
    views = images(towers)
    trained = build(towers, **settings)
    mixed = build(towers, **settings, zero_shot_weight=0.9)
    assert mixed.weights == trained.weights
    with torch.no_grad():
        members = mixed.members(mixed.pooled(views), mixed.class_features(), mixed.pooled(views))
    parts = ["capnet", "class_head"] if head else ["capnet"]
    torch.testing.assert_close(mixed.served(members), sum(members[name] for name in parts) / len(parts))
