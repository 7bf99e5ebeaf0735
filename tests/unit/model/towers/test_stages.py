"""Features of a convolutional tower's earlier stages: what each stage puts out, behind the pooled ones, for the class
head alone.
"""

import pytest
import torch

from capnet.config import Backbone, Train
from capnet.contracts import write_tensors
from capnet.model.backbones import load_towers
from capnet.model.capnet import CapNet
from capnet.model.packed import read_backbone, write_backbone

STAGES = {
    "tiny-resnet": ["avgpool", "layer1", "layer2", "layer3", "layer4"],
    "lit": [f"blocks.{i}" for i in (1, 2, 4, 6)],
}
NAMES = ["fox", "red deer", "snow"]


def load(name, make_towers, request, stages):
    if name == "lit":
        request.getfixturevalue("lit")
        return load_towers(Backbone(name="lit-efflite0-minilm", pretrained="wheels", stages=stages))
    make_towers(name)
    return load_towers(Backbone(name=name, pretrained="random", stages=stages))


def pictures(towers):
    size = towers.preprocess.size
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("name", STAGES)
def test_behind_the_pooled_features_are_the_means_of_what_each_stage_puts_out(name, make_towers, request):
    towers, without = (load(name, make_towers, request, stages) for stages in (True, False))
    assert (towers.pooled_dim, without.stage_dim) == (without.pooled_dim, 0)
    batch, outputs = pictures(towers), []
    network = towers.image.network
    for stage in STAGES[name]:
        network.get_submodule(stage).register_forward_hook(lambda module, given, output: outputs.append(output))
    with torch.no_grad():
        features, pooled = towers.image.pooled(batch), without.image.pooled(batch)
    assert torch.equal(features[:, : towers.pooled_dim], pooled)
    rest = features[:, towers.pooled_dim :]
    assert rest.shape[1] == towers.stage_dim
    expected = torch.cat([output.mean(dim=(2, 3)) for output in outputs], dim=1)
    torch.testing.assert_close(rest[:, -expected.shape[1] :], expected.half().float())
    assert towers.feature_key != without.feature_key, "the feature store keeps both apart"


@pytest.mark.parametrize("name", STAGES)
def test_in_bf16_the_feature_store_keeps_them_as_they_are(name, make_towers, request):
    """Else a prediction, which does not read the store, differs from the evaluation of the same image."""
    towers = load(name, make_towers, request, stages=True)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        features = towers.image.pooled(pictures(towers)).float()
    assert torch.equal(features.half().float(), features)


@pytest.mark.parametrize("name", STAGES)
def test_the_folded_network_gives_the_same(name, make_towers, request):
    towers = load(name, make_towers, request, stages=True)
    batch = pictures(towers)
    with torch.no_grad():
        whole = towers.image.pooled(batch)
        towers.to(torch.device("cpu"))
        assert towers.image.folded is not None
        torch.testing.assert_close(towers.image.pooled(batch), whole, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny-clip", "tiny-biomed"])
def test_a_transformer_has_no_stages(name, make_towers, request):
    towers, without = (load(name, make_towers, request, stages) for stages in (True, False))
    assert (towers.stage_dim, towers.feature_key) == (0, without.feature_key)
    batch = pictures(towers)
    assert torch.equal(towers.image.pooled(batch), without.image.pooled(batch))


@pytest.mark.parametrize("location", ["bridge", "pooled", "joint"])
def test_the_class_head_alone_sees_them(location, make_towers, request):
    towers, without = (load("tiny-resnet", make_towers, request, stages) for stages in (True, False))
    settings = Train(blend="held_out", class_head={"enabled": True}, adapter={"location": location})
    adjacency, text = torch.eye(len(NAMES)), torch.randn(len(NAMES), towers.embed_dim)
    batch, members, heads = pictures(towers), [], []
    for each in (towers, without):
        torch.manual_seed(0)
        model = CapNet(each, NAMES, adjacency, text, settings)
        pooled = model.pooled(batch)
        model.prepare_for(pooled.unsqueeze(1), torch.eye(2, 3).bool(), torch.ones(2, 3).bool())
        with torch.no_grad():
            model.class_head.weight.fill_(0.01)
            model.linear_probe.weight.fill_(0.02)
            members.append(model.members(pooled, model.class_features(), pooled))
        heads.append(model.class_head.weight.shape[1])
    assert heads == [towers.pooled_dim + towers.stage_dim, towers.pooled_dim]
    head, plain = (item.pop("class_head") for item in members)
    assert not torch.allclose(head, plain)
    for name, logits in members[1].items():
        torch.testing.assert_close(members[0][name], logits, msg=name)


def test_a_packed_model_has_them_too(make_towers, request, tmp_path):
    towers = load("tiny-resnet", make_towers, request, stages=True)
    settings = Train(class_head={"enabled": True})
    model = CapNet(towers, NAMES, torch.eye(len(NAMES)), torch.randn(len(NAMES), towers.embed_dim), settings)
    write_tensors(tmp_path / "model.safetensors", model.trained_tensors(), {})
    write_backbone(tmp_path, model)
    packed = read_backbone(tmp_path, settings)
    assert packed.class_head.weight.shape == model.class_head.weight.shape
    assert torch.equal(packed.pooled(pictures(towers)), model.pooled(pictures(towers)))
