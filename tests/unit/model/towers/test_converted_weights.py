"""What messages and docs/weights.md give to convert other checkpoints is run here, and gives the same model."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from capnet.config import Backbone
from capnet.errors import DataError
from capnet.model.backbones import load_towers
from capnet.model.towers import tensors_digest
from tests.unit.model import tiny

pytestmark = pytest.mark.slow


def _loaded(path: Path) -> torch.nn.Module:
    """The image tower of a converted file."""
    return load_towers(Backbone(name="tiny-clip", pretrained=str(path))).image.visual


def _todo(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        load_towers(Backbone(name="tiny-clip", pretrained=str(path)))
    (problem,) = caught.value.problems
    return problem.todo


@pytest.mark.parametrize(
    ("prefix", "wrapped", "file"),
    [
        ("model.", True, "last.ckpt"),
        ("module.model.", False, 'it\'s "the" $best.pt'),
        ("_orig_mod.", False, "weights.safetensors"),
    ],
)
def test_the_command_in_the_message_takes_the_prefix_off(prefix: str, wrapped: bool, file: str, tmp_path: Path) -> None:
    tiny.register("tiny-clip", tmp_path / "configs")
    tensors = open_clip.create_model("tiny-clip", pretrained=None).state_dict()
    longer = {f"{prefix}{name}": tensor for name, tensor in tensors.items()}
    if file.endswith(".safetensors"):
        save_file(longer, tmp_path / file)
    else:
        longer["module.loss.weight" if prefix.startswith("module") else "loss.weight"] = torch.ones(2)
        torch.save({"state_dict": longer, "epoch": 3} if wrapped else longer, tmp_path / file)
    (command,) = re.findall("`(python -c .+)`", _todo(tmp_path / file))
    program = command.replace("python", f"'{sys.executable}'", 1)
    subprocess.run(program, shell=True, check=True, cwd=tmp_path, timeout=300)
    converted = tmp_path / f"{Path(file).stem}-open_clip.pt"
    assert tensors_digest(torch.load(converted, weights_only=True)) == tensors_digest(tensors)
    assert torch.equal(_loaded(converted).conv1.weight, tensors["visual.conv1.weight"])


def test_a_prefix_that_holds_code_stays_text(tmp_path: Path) -> None:
    """Names in a checkpoint are a stranger's: the command in the message must quote them."""
    tiny.register("tiny-clip", tmp_path / "configs")
    tensors = open_clip.create_model("tiny-clip", pretrained=None).state_dict()
    prefix = "m'; touch hacked; ' $(touch hacked).\\"
    torch.save({f"{prefix}{name}": tensor for name, tensor in tensors.items()}, tmp_path / "w.pt")
    (command,) = re.findall("`(python -c .+)`", _todo(tmp_path / "w.pt"), re.DOTALL)
    subprocess.run(command.replace("python", f"'{sys.executable}'", 1), shell=True, cwd=tmp_path, timeout=300)
    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize("saved", ["by transformers", "as a state_dict"])
def test_the_lines_in_the_document_convert_a_model_of_transformers(
    saved: str, tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import CLIPConfig, CLIPModel

    tiny.register("tiny-clip", tmp_path / "configs")
    shape = tiny.CONFIGS["tiny-clip"]
    sizes = {"hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config={**sizes, "hidden_act": "gelu"},
        vision_config={**sizes, "hidden_act": "gelu", "image_size": 32, "patch_size": 8},
        projection_dim=shape["embed_dim"],
    )
    torch.manual_seed(0)
    theirs = CLIPModel(config).eval()
    if saved == "by transformers":
        theirs.save_pretrained(tmp_path)
    else:
        save_file({k: v.contiguous() for k, v in theirs.state_dict().items()}, tmp_path / "model.safetensors")
    assert "docs/weights.md" in _todo(tmp_path / "model.safetensors")
    (lines,) = re.findall(r"```python\n(.*?)```", (repository / "docs/weights.md").read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(lines, {})
    converted = tmp_path / "open_clip_model.safetensors"
    ours = open_clip.create_model("tiny-clip", pretrained=str(converted)).eval()
    images, texts = torch.randn(3, 3, 32, 32), open_clip.get_tokenizer("ViT-B-32")(["a red fox", "snow"])
    with torch.no_grad():
        expected = theirs(input_ids=texts, pixel_values=images)
        torch.testing.assert_close(ours.encode_image(images, normalize=True), expected.image_embeds)
        torch.testing.assert_close(ours.encode_text(texts, normalize=True), expected.text_embeds)
    assert torch.equal(_loaded(converted).proj, theirs.visual_projection.weight.T)
