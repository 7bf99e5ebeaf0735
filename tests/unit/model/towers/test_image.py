"""An image tower in two parts is the whole one; adapters in its last blocks leave the first part alone."""

import pytest
import torch

from capnet.config import Adapter
from capnet.errors import ConfigError
from capnet.model.adapters import block_adapters

DIVIDED = {"tiny-clip": 32, "tiny-coca": 32, "tiny-not-causal": 192, "tiny-biomed": 192}  # width of the blocks


def images(towers):
    size = towers.preprocess.size
    return torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.slow
@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("name", DIVIDED)
def test_the_two_parts_together_give_the_bits_of_the_whole(name, bf16, make_towers):
    towers = make_towers(name)
    tower, batch = towers.image, images(towers)
    assert tower.divides
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        whole = tower.pooled(batch)
        for blocks in range(1, len(tower.blocks)):
            tokens = tower.tokens(batch, blocks)
            assert tokens.shape[0] == 3
            assert tokens.shape[2] == DIVIDED[name]
            assert torch.equal(tower.pooled_of_tokens(tokens, blocks), whole)


def test_a_tower_of_another_kind_does_not_divide(make_towers):
    assert not make_towers("tiny-resnet").image.blocks


def test_adapters_in_the_last_blocks_change_what_is_behind_their_tokens(make_towers):
    towers = make_towers("tiny-clip")
    tower, batch = towers.image, images(towers)
    tokens, plain = tower.tokens(batch, 1), tower.pooled(batch)
    adapters = block_adapters(tower, Adapter(blocks=1))
    assert len(adapters.adapters) == 1
    with torch.no_grad():
        adapters.adapters[0].up_proj.weight.normal_(generator=torch.Generator().manual_seed(2))
    assert torch.equal(tower.tokens(batch, 1), tokens)
    assert torch.equal(tower.pooled_of_tokens(tokens, 1), tower.pooled(batch))
    assert not torch.allclose(tower.pooled(batch), plain, atol=1e-3)
    adapters.remove()
    with pytest.raises(ConfigError, match=r"blocks = 3, and the image tower has 2"):
        block_adapters(tower, Adapter(blocks=3))
