"""A convolutional tower without its batch normalisation is the same function, or is not used."""

import pytest
import torch
from torch import nn

from capnet.model.towers import folding
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


@pytest.mark.parametrize("size", [64, 96, 224])
@torch.no_grad()
def test_tensorflows_padding_writes_no_padded_copy(size, monkeypatch):
    import timm
    from timm.layers import Conv2dSame

    network = with_statistics(timm.create_model("tf_efficientnet_lite0", num_classes=0))
    whole = folded(network, size)
    assert not any(isinstance(module, Conv2dSame) for module in whole.modules())
    monkeypatch.setattr(folding, "_padding_evenly", lambda convolution: convolution)
    padded = folded(network, size)
    assert any(isinstance(module, Conv2dSame) for module in padded.modules())
    # no bit differs on an EPYC with avx512_bf16, in fp32 and bf16; other kernels may add in another order
    torch.testing.assert_close(whole(images(size)), padded(images(size)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [48, 65])
@torch.no_grad()
def test_tensorflows_padding_stays_where_a_size_on_the_way_is_odd(size):
    import timm

    network = with_statistics(timm.create_model("tf_efficientnet_lite0", num_classes=0))
    torch.testing.assert_close(folded(network, size)(images(size)), network(images(size)), rtol=1e-4, atol=1e-4)


class Shortcut(nn.Module):
    """Where its input has an odd size, the evenly padded convolution gives a row less than the shortcut."""

    def __init__(self, kernel, dilation=1):
        super().__init__()
        from timm.layers import AvgPool2dSame, Conv2dSame

        self.convolution = Conv2dSame(3, 3, kernel, stride=2, dilation=dilation)
        self.normalisation, self.pool = nn.BatchNorm2d(3), AvgPool2dSame(2, 2)

    def forward(self, x):
        return self.normalisation(self.convolution(x)) + self.pool(x)


@pytest.mark.parametrize("size", [32, 33])
@pytest.mark.parametrize(("kernel", "dilation"), [(1, 1), (2, 1), (3, 1), (4, 1), ((3, 5), 1), (3, 2)])
@torch.no_grad()
def test_any_kernel_of_tensorflows_padding_is_the_same_function(kernel, dilation, size):
    network = with_statistics(Shortcut(kernel, dilation))
    whole = folded(network, size)
    assert not normalisations(whole)
    torch.testing.assert_close(whole(images(size)), network(images(size)), rtol=1e-4, atol=1e-4)


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
