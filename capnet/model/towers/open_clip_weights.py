"""Towers of any open_clip model: from a tag, a weight file or a folder; loading never falls back to other weights."""

from __future__ import annotations

import difflib
import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from capnet.config import Backbone
from capnet.contracts import sha256_file
from capnet.errors import ConfigError, DataError, counted
from capnet.model.backbones.entry import is_weight_file
from capnet.model.backbones.openai_weights import OPENAI_WEIGHTS
from capnet.model.towers.image import Preprocess
from capnet.model.towers.image_size import set_image_size
from capnet.model.towers.pair import Towers, assemble, tensors_digest
from capnet.model.towers.weight_errors import FOLDER, tokenizer_error, weights_error
from capnet.streams import quiet

log = logging.getLogger(__name__)

RESIZE = {"squash": "squash", "longest": "pad"}  # open_clip's resize_mode -> tte.resize


def load_open_clip(settings: Backbone, image_size: int, others: Sequence[str]) -> Towers:
    """Build the towers of an open_clip model.

    Args:
        settings: the model with a tag, a local file, ``local-dir:FOLDER`` or, for tests, ``random`` weights.
        image_size: width and height of the images in pixels; 0: the model's own.
        others: backbones that are not open_clip's, which the error for an unknown name lists.

    Raises:
        ConfigError: there is no such model, tag or size, or the weights belong to another activation.
        DataError: weights are missing or damaged.
    """
    import open_clip

    name, pretrained, digest = _source(settings, others)
    try:
        with torch.random.fork_rng(devices=[]):
            if settings.pretrained == "random":
                torch.manual_seed(0)  # so that every stage sees the same weights
            if digest in OPENAI_WEIGHTS:
                model = _from_torchscript(name, pretrained)
            else:
                with quiet({"": logging.CRITICAL, "huggingface_hub": logging.ERROR}):  # what fails is raised
                    model = open_clip.create_model(
                        name,
                        pretrained=pretrained or None,
                        pretrained_text=False,
                        require_pretrained=settings.pretrained != "random",
                        weights_only=True,
                    )
    except Exception as error:  # a damaged file makes the loaders raise anything, IndexError included
        raise weights_error(settings, error) from None
    model.requires_grad_(False).eval()
    used = [item for item in model.named_parameters() if not item[0].startswith("text_decoder.")]  # CoCa's captions
    broken = [part for part, tensor in used if not tensor.isfinite().all()]
    if broken:
        what = f"{counted(len(broken), 'tensor')} of it, {broken[0]} among them, hold values that are no finite numbers"
        raise DataError(what, settings.pretrained, "use the file as it was published: this one is damaged")
    tokenizer = _tokenizer(name, settings)
    config = model.visual.preprocess_cfg
    if digest and not settings.pretrained.startswith(FOLDER):
        config = _as_published(name, "openai" if digest in OPENAI_WEIGHTS else "", config)
    size = config["size"]
    own_size = int(size[0] if isinstance(size, tuple | list) else size)
    digest = digest or tensors_digest(model.state_dict())
    resized = image_size if image_size not in (0, own_size) else 0
    if resized:
        set_image_size(model.visual, resized, settings.name)
    interpolation = _interpolation(config, settings.pretrained)
    preprocess = Preprocess(resized or own_size, tuple(config["mean"]), tuple(config["std"]), interpolation)
    shape = open_clip.get_model_config(name) or {}
    architecture = {
        "embed_dim": shape["embed_dim"],
        "vision_cfg": shape["vision_cfg"],
        "quick_gelu": shape.get("quick_gelu", False),
        "resized": resized,
    }
    towers = assemble(model, tokenizer, preprocess, digest, architecture, settings.stages)
    towers.resize = RESIZE.get(config.get("resize_mode") or "", "")
    return towers


def _source(settings: Backbone, others: Sequence[str]) -> tuple[str, str, str]:
    """Name and weights as ``open_clip.create_model`` takes them, and the sha256 of files ("" for a tag)."""
    import open_clip

    name, source = settings.name, settings.pretrained
    if source.startswith(FOLDER):
        return source, "", _folder_digest(Path(source.removeprefix(FOLDER)))
    if ":" in name or open_clip.get_model_config(name) is None:
        close = difflib.get_close_matches(name, open_clip.list_models(), n=1, cutoff=0.8)
        todo = "pick one of these or one that `python -c 'import open_clip; print(open_clip.list_models())'` prints"
        if ":" in name:
            todo = "name the model alone; weights are set in backbone.pretrained, also as local-dir:FOLDER"
        raise ConfigError(
            f"backbone.name = {name!r} is no open_clip model and none of {', '.join(others)}",
            "settings",
            f"did you mean {close[0]!r}? {todo}" if close else todo,
        )
    if source == "random":
        return name, "", ""
    if is_weight_file(source):
        return name, source, _check_file(Path(source), name)
    tags = open_clip.list_pretrained_tags_by_model(name)
    if source not in tags:
        raise ConfigError(
            f"backbone.pretrained = {source!r} is neither a file nor a tag of {name}",
            "settings",
            f"tags are: {', '.join(tags) or 'none'}; or give a .pt or .safetensors file, or local-dir:FOLDER",
        )
    if open_clip.get_pretrained_cfg(name, source).get("quick_gelu", False):
        _require_quick_gelu(name, f"tag {source}")
    return name, source, ""


def _check_file(path: Path, name: str) -> str:
    if path.is_dir():
        todo = f"name the file in it, or set local-dir:{path} where it also holds open_clip_config.json"
        raise DataError("backbone.pretrained is a folder, and no weight file", str(path.absolute()), todo)
    if not path.is_file():
        raise DataError(
            f"weight file {path.name} is missing",
            str(path.absolute()),
            f"put the weights of {name} there, or set backbone.pretrained to their path or to one of open_clip's tags",
        )
    digest = sha256_file(path)
    if digest in OPENAI_WEIGHTS:
        _require_quick_gelu(name, f"{path} (OpenAI's {OPENAI_WEIGHTS[digest]})")
    else:
        _warn_of_activation(name, path)
    return digest


def _warn_of_activation(name: str, path: Path) -> None:
    """Warn which activation a weight file gets where open_clip has the model with both: no file says what it needs."""
    import open_clip

    plain = name.removesuffix("-quickgelu")
    if {plain, f"{plain}-quickgelu"} <= set(open_clip.list_models()):
        log.warning(
            "%s does not say which activation it needs, and %s runs %s: weights of OpenAI, MetaCLIP and DFN need"
            " %s-quickgelu, those of LAION and DataComp %s",
            path,
            name,
            "GELU" if name == plain else "QuickGELU",
            plain,
            plain,
        )


def _as_published(name: str, tag: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """How images are prepared for a weight file, which does not say it: as for all published weights of its model.

    Args:
        name: of the model.
        tag: of the weights, where it is known; else all tags of the model count.
        config: open_clip's own mean, std, interpolation and resize_mode; one stays where published weights differ or
            there are none.

    Returns:
        ``config`` with what the published weights share.
    """
    import open_clip

    tags = [known for known in open_clip.list_pretrained_tags_by_model(name) if tag in ("", known)]
    published = [open_clip.get_pretrained_cfg(name, known) for known in tags]
    result = dict(config)
    for key in ("mean", "std", "interpolation", "resize_mode"):
        values = {one[key] for one in published if one.get(key)}
        if len(values) == 1:
            result[key] = values.pop()
        elif values and key != "resize_mode":  # a setting says what is taken
            what = "weights of %s were published with more than one %s; %s is taken, and a local-dir:FOLDER has its own"
            log.warning(what, name, key, result[key])
    return result


def _interpolation(config: Mapping[str, Any], source: str) -> str:
    """PIL's filter; what open_clip draws at random in training is bicubic at test time, there too."""
    value = config.get("interpolation") or "bicubic"
    if value not in ("bicubic", "bilinear", "random"):
        todo = "set interpolation in its preprocess_cfg to bicubic or bilinear, as the weights were trained"
        raise DataError(f"open_clip resizes no images with interpolation {value!r}", source, todo)
    return "bicubic" if value == "random" else str(value)


def _from_torchscript(name: str, path: str) -> Any:
    """An open_clip model with the tensors of OpenAI's own file, a TorchScript archive. Such a file may hold code: the
    caller knows its hash, and torch.jit reads no pickle of Python's.
    """
    import open_clip

    with quiet({"": logging.ERROR}):  # it warns of weights that are missing, and here they come
        model = open_clip.create_model(name, pretrained=None)
    load: Callable[..., Any] = torch.jit.load
    state = load(path, map_location="cpu").state_dict()
    for extra in ("input_resolution", "context_length", "vocab_size"):
        state.pop(extra, None)
    model.load_state_dict(state)  # half precision there, single here
    return model


def _folder_digest(folder: Path) -> str:
    if not (folder / "open_clip_config.json").is_file():
        raise DataError(
            "open_clip_config.json is missing",
            str(folder.absolute()),
            "put the model's open_clip_config.json and weight file into that folder",
        )
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return hashlib.sha256("".join(f"{path.name} {sha256_file(path)}\n" for path in files).encode()).hexdigest()


def _require_quick_gelu(name: str, source: str) -> None:
    import open_clip

    if not (open_clip.get_model_config(name) or {}).get("quick_gelu", False):
        raise ConfigError(
            f"backbone.name = {name!r} runs GELU, but these weights were trained with QuickGELU",
            source,
            f"set backbone.name: {name}-quickgelu",
        )


def _tokenizer(name: str, settings: Backbone) -> Callable[..., Tensor]:
    import open_clip

    try:
        with quiet({"": logging.CRITICAL}):  # what fails is raised
            tokenizer: Callable[..., Tensor] = open_clip.get_tokenizer(name)
        if torch.equal(tokenizer(["cat"]), tokenizer(["dog"])):  # of no files transformers makes an empty one
            raise ValueError("it knows no words: 'cat' and 'dog' are the same tokens")
    except (OSError, RuntimeError, ValueError) as error:
        raise tokenizer_error(settings, error) from None
    return tokenizer
