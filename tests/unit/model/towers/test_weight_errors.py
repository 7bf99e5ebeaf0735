"""Weights that cannot be loaded are refused with what to do."""

from __future__ import annotations

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from capnet.config import Backbone
from capnet.errors import DataError
from capnet.model.backbones import load_towers
from tests.unit.model import tiny


@pytest.mark.parametrize("ending", ["pt", "safetensors"])
def test_a_weight_file_that_is_cut_off_is_to_be_downloaded_again(ending, tmp_path):
    tiny.register("tiny-clip", tmp_path / "configs")
    tensors, weights = open_clip.create_model("tiny-clip", pretrained=None).state_dict(), tmp_path / f"weights.{ending}"
    if ending == "pt":
        torch.save(tensors, weights)
    else:
        save_file(tensors, weights)
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    with pytest.raises(DataError, match=r"it is cut off or damaged(.|\n)*to do: download or copy it again"):
        load_towers(Backbone(name="tiny-clip", pretrained=str(weights)))
