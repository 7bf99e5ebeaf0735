"""The image tower of every kind is built again from what is packed, without the backbone's files."""

import pytest
import torch

from capnet.config import Backbone
from capnet.model.backbones import load_towers
from capnet.model.packed import build_visual
from capnet.model.towers import ImageTower

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("name", "size"), [("tiny-clip", 48), ("tiny-biomed", 160), ("RN50-quickgelu", 160)])
def test_an_image_tower_of_another_size_is_built_again(name, size, make_towers):
    if name.startswith("tiny"):
        make_towers(name)
    check(load_towers(Backbone(name=name, pretrained="random"), size), size)


@pytest.mark.parametrize("name", ["tiny-clip", "tiny-not-causal", "tiny-coca", "tiny-biomed", "RN50-quickgelu", "lit"])
def test_the_image_tower_is_built_again(name, make_towers, request):
    if name == "lit":
        towers = request.getfixturevalue("lit")
    else:
        towers = make_towers(name) if name.startswith("tiny") else load_towers(Backbone(name=name, pretrained="random"))
    check(towers, towers.preprocess.size)


def check(towers, size):
    assert towers.preprocess.size == size
    visual = build_visual(towers.architecture)
    visual.load_state_dict(towers.image.visual.state_dict())
    image = ImageTower(visual.requires_grad_(False).eval())
    pictures = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    pooled = image.pooled(pictures)
    assert torch.equal(pooled, towers.image.pooled(pictures))
    assert torch.equal(image.project(pooled), towers.image.project(pooled))
