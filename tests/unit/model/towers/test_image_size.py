"""tte.size: another side than the backbone's own, equal to open_clip's own way, for every kind of tower."""

import open_clip
import pytest
import torch

from capnet.config import Backbone, Tte, parse
from capnet.data.images.transform import Transform
from capnet.errors import ConfigError
from capnet.model.adapters import BlockAdapters
from capnet.model.backbones import load_towers

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", ["tiny-clip", "tiny-biomed"])
def test_a_vit_at_another_size_is_open_clips(name, make_towers, tmp_path):
    """One weight file, loaded by open_clip with force_image_size and by us."""
    own = make_towers(name)
    torch.manual_seed(7)
    path = tmp_path / "weights.pt"
    torch.save(open_clip.create_model(name, pretrained=None, pretrained_text=False).state_dict(), path)
    size = 48
    towers = load_towers(Backbone(name=name, pretrained=str(path)), size)
    expected = open_clip.create_model(name, pretrained=str(path), pretrained_text=False, force_image_size=size).eval()
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        assert torch.equal(towers.image.project(towers.image.pooled(images)), expected.encode_image(images))
        assert torch.equal(
            towers.text(["a cat"]), load_towers(Backbone(name=name, pretrained=str(path))).text(["a cat"])
        )
    assert towers.preprocess.size == size != own.preprocess.size
    assert not any(parameter.requires_grad for parameter in towers.image.parameters())
    adapters = BlockAdapters(towers.image.blocks, 8, 1.0)
    towers.image.pooled(images).sum().backward()
    assert any(parameter.grad is not None for parameter in adapters.parameters())


def test_the_weights_are_the_same_whatever_the_size(make_towers):
    """So the graph, which is made of text, and a model at another size belong together."""
    own = make_towers("tiny-clip")
    other = load_towers(Backbone(name="tiny-clip", pretrained="random"), 64)
    assert other.weight_hash == own.weight_hash
    assert torch.equal(
        load_towers(Backbone(name="tiny-clip", pretrained="random"), 32).image.visual.positional_embedding,
        own.image.visual.positional_embedding,
    )


def test_the_attention_pooling_of_a_resnet_is_interpolated(make_towers):
    own = make_towers("tiny-resnet").image.visual
    towers = load_towers(Backbone(name="tiny-resnet", pretrained="random"), 96)
    old, new = own.attnpool.positional_embedding, towers.image.visual.attnpool.positional_embedding
    assert (len(old), len(new)) == (1 + 2 * 2, 1 + 3 * 3)
    assert torch.equal(new[0], old[0]), "the mean's own"
    assert torch.allclose(new[1:].view(3, 3, -1)[1, 1], old[1:].mean(dim=0), atol=1e-6), (
        "the middle of three by three lies between all four"
    )
    with torch.no_grad():
        assert torch.isfinite(towers.image.pooled(torch.randn(1, 3, 96, 96))).all()


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [("tiny-clip", 44, "40 or 48"), ("tiny-resnet", 100, "96 or 128"), ("tiny-biomed", 100, "96 or 112")],
)
def test_a_size_that_is_no_multiple_of_the_patches_names_those_that_are(name, size, message, make_towers):
    make_towers(name)
    with pytest.raises(ConfigError, match=rf"tte\.size = {size}(.|\n)*such as {message}"):
        load_towers(Backbone(name=name, pretrained="random"), size)


def test_a_convolutional_tower_takes_any_size(lit):
    towers = load_towers(Backbone(name="lit-efflite0-minilm", pretrained="wheels"), 161)
    assert (towers.preprocess.size, towers.weight_hash, towers.pooled_dim) == (161, lit.weight_hash, lit.pooled_dim)
    with torch.no_grad():
        assert not torch.allclose(
            towers.image.pooled(torch.ones(1, 3, 161, 161)), lit.image.pooled(torch.ones(1, 3, 224, 224))
        )


def test_cached_features_are_of_one_size():
    looks = [
        Transform(size, (0.5,) * 3, (0.5,) * 3, "bicubic", Tte(size=setting))
        for size, setting in ((224, 0), (160, 160), (160, 0))
    ]
    large, small, same = (transform.key() for transform in looks)
    assert large != small == same


@pytest.mark.parametrize("size", [-1, 31, 5000, 160.5])
def test_impossible_sizes_are_refused(size):
    with pytest.raises(ConfigError, match=r"tte\.size"):
        parse({"tte": {"size": size}})
