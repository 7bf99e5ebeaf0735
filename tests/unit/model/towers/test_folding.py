"""A convolutional tower without its batch normalisation is the same function, or is not used."""

import pytest
import torch
from torch import nn

from capnet.model.towers.folding import folded

SIZE = 32
NETWORKS = ["efficientnet_lite0", "mobilenetv3_small_050", "resnet18", "regnetx_002"]


def with_statistics(network):
    """``network`` with normalisations that do something."""
    generator = torch.Generator().manual_seed(3)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            with torch.no_grad():
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.uniform_(-0.5, 0.5, generator=generator)
                module.running_mean.uniform_(-0.5, 0.5, generator=generator)
                module.running_var.uniform_(0.5, 2.0, generator=generator)
    return network.eval().requires_grad_(False)


def images(size=SIZE):
    return torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(1))


def normalisations(network):
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def assert_folded(network):
    whole, before = folded(network, SIZE), normalisations(network)
    assert before
    assert not normalisations(whole)
    assert normalisations(network) == before
    torch.testing.assert_close(whole(images()), network(images()), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_networks_of_timm_are_the_same_function_without_normalisation(name):
    import timm

    assert_folded(with_statistics(timm.create_model(name, num_classes=0)))


@torch.no_grad()
def test_resnets_of_clip_are_the_same_function_without_normalisation():
    from open_clip.modified_resnet import ModifiedResNet

    assert_folded(with_statistics(ModifiedResNet((1, 1, 1, 1), output_dim=8, heads=2, image_size=SIZE, width=8)))


class OtherOrder(nn.Module):
    """Its normalisation comes before its convolution, though after it in the list of children."""

    def __init__(self):
        super().__init__()
        self.convolution, self.normalisation = nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.convolution(self.normalisation(x)).mean(dim=(2, 3))


@torch.no_grad()
def test_a_network_that_folding_would_change_keeps_its_normalisation():
    assert folded(with_statistics(OtherOrder()), SIZE) is None


@torch.no_grad()
def test_a_network_without_normalisation_is_not_copied():
    assert folded(nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten()), SIZE) is None


@torch.no_grad()
def test_towers_that_are_ready_run_the_folded_copy_and_keep_the_published_weights(make_towers):
    towers = make_towers("tiny-resnet")
    with_statistics(towers.image.visual)
    names = list(towers.image.visual.state_dict())
    batch = images(towers.preprocess.size)
    plain = towers.image.pooled(batch)
    assert towers.to(torch.device("cpu")).image.folded is not None
    torch.testing.assert_close(towers.image.pooled(batch), plain, rtol=1e-4, atol=1e-4)
    assert list(towers.image.visual.state_dict()) == names
