"""Image and text towers behind one interface, through open_clip; loading weights never falls back to others."""

from __future__ import annotations

import hashlib
import logging
import os
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from capnet.config import Backbone
from capnet.contracts import sha256_file
from capnet.errors import ConfigError, DataError
from capnet.model.image_size import set_image_size
from capnet.model.openai_weights import OPENAI_WEIGHTS
from capnet.model.text_towers import TextTower, make_text_tower, pooled_only


@dataclass(frozen=True)
class Preprocess:
    """How pictures become tensors: side in pixels, per-channel mean and standard deviation, PIL filter name."""

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bicubic"


class ImageTower(nn.Module):
    """An open_clip visual tower split where adapters of towers without blocks go.

    ``pooled``: pictures [batch, 3, size, size] -> [batch, pooled]; ``project``: [batch, pooled] -> [batch, embed].
    """

    visual: Any

    def __init__(self, visual: Any) -> None:
        super().__init__()
        self.visual = pooled_only(visual)
        self._head = visual.head if hasattr(visual, "trunk") else None  # timm towers end in their own projection

    @property
    def blocks(self) -> list[nn.Module]:
        """Transformer blocks, none for convolutional towers."""
        owner = getattr(self.visual, "trunk", getattr(self.visual, "transformer", None))
        blocks = getattr(owner, "blocks", None) if hasattr(self.visual, "trunk") else getattr(owner, "resblocks", None)
        is_vit = blocks is not None and len(blocks) > 0 and any(hasattr(blocks[0], name) for name in ("norm2", "ln_2"))
        return list(blocks) if blocks is not None and is_vit else []

    @property
    def thread_safe(self) -> bool:
        """Whether threads may run it at once: adapters in blocks keep the stream of the picture that is on its way."""
        return not self.blocks

    @property
    def block_width(self) -> int:
        block: Any = self.blocks[0]
        norm = block.ln_2 if hasattr(block, "ln_2") else block.norm2
        return int(norm.weight.shape[0])

    def pooled(self, images: Tensor) -> Tensor:
        output: Tensor = self.visual.trunk(images) if self._head is not None else self.visual(images)
        return output

    def project(self, pooled: Tensor) -> Tensor:
        output: Tensor = self._head(pooled) if self._head is not None else pooled
        return output


@dataclass
class Towers:
    """Both towers, frozen, with what else the method needs to know about them."""

    image: ImageTower
    text: TextTower
    preprocess: Preprocess
    embed_dim: int
    pooled_dim: int
    weight_hash: str
    # (mean [embed], orthogonal projector [embed, embed]) of the lit towers
    centring: tuple[Tensor, Tensor] | None = None
    # what the image tower is built from: open_clip's, and resized (px, 0: not)
    architecture: Mapping[str, Any] = field(default_factory=dict)

    def centre(self, text_features: Tensor) -> Tensor:
        """Centred text features [class, embed]; unchanged where the backbone has no centring projector."""
        if self.centring is None:
            return text_features
        mean, projector = (tensor.to(text_features) for tensor in self.centring)
        return (text_features - mean) @ projector

    def to(self, device: torch.device) -> Towers:
        self.image.to(device)
        self.text.to(device)
        return self


def load_towers(settings: Backbone, size: int = 0) -> Towers:
    """Build the towers that ``settings`` names, for pictures of ``size`` px a side (0: the backbone's own).

    Raises ConfigError or DataError, never loads a substitute. The weight hash is that of the weights as published,
    whatever the size.
    """
    if settings.name.startswith("lit-"):
        from capnet.model.lit import load_lit

        return load_lit(settings, size)
    return load_open_clip(settings, size)


def load_open_clip(settings: Backbone, image_size: int = 0) -> Towers:
    """Any open_clip model with a tag, a local file, ``local-dir:FOLDER`` or, for tests, ``random`` weights."""
    import open_clip

    source = settings.pretrained
    name, pretrained, digest = settings.name, source, ""
    if source.startswith("local-dir:"):
        name, pretrained = source, ""
        digest = _folder_digest(Path(source.removeprefix("local-dir:")))
    elif open_clip.get_model_config(name) is None:
        raise ConfigError(
            f"backbone.name = {name!r} is no open_clip model",
            "settings",
            "pick one that `python -c 'import open_clip; print(open_clip.list_models())'` prints, or a lit-* name",
        )
    elif source == "random":
        pretrained = ""
    elif _looks_like_path(source):
        digest = _check_file(Path(source), name)
    elif source not in open_clip.list_pretrained_tags_by_model(name):
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(name)) or "none"
        raise ConfigError(
            f"backbone.pretrained = {source!r} is neither a file nor a tag of {name}",
            "settings",
            f"tags are: {tags}; or give a .pt or .safetensors file, or local-dir:FOLDER",
        )
    else:
        _demand_quick_gelu(name, open_clip.get_pretrained_cfg(name, source).get("quick_gelu", False), f"tag {source}")
    try:
        with _seeded(source == "random"):
            if digest in OPENAI_WEIGHTS and _is_torchscript(Path(source)):
                model = _from_torchscript(name, Path(source))
            else:
                model = open_clip.create_model(
                    name, pretrained=pretrained or None, pretrained_text=False, weights_only=True
                )
    except Exception as error:  # a damaged file makes the loaders raise anything, IndexError included
        raise _weights_error(settings, error) from None
    model.requires_grad_(False).eval()
    tokenizer = _tokenizer(name, settings)
    config = getattr(model.visual, "preprocess_cfg", {})
    size = config.get("size", model.visual.image_size)
    side = int(size[0] if isinstance(size, tuple | list) else size)
    digest = digest or tensors_digest(model.state_dict())
    resized = image_size if image_size not in (0, side) else 0
    if resized:
        side = resized
        set_image_size(model.visual, side, settings.name)
    preprocess = Preprocess(side, tuple(config["mean"]), tuple(config["std"]), config.get("interpolation", "bicubic"))
    towers = assemble(model, tokenizer, preprocess, digest)
    shape = open_clip.get_model_config(name) or {}
    quick_gelu = shape.get("quick_gelu", False)
    towers.architecture = {
        "embed_dim": shape["embed_dim"],
        "vision_cfg": shape["vision_cfg"],
        "quick_gelu": quick_gelu,
        "resized": resized,
    }
    return towers


def assemble(model: Any, tokenizer: Callable[..., Tensor], preprocess: Preprocess, weight_hash: str) -> Towers:
    """Towers around a built open_clip model; finds the widths by looking at the modules."""
    image = ImageTower(model.visual)
    text = make_text_tower(model, tokenizer)
    with torch.no_grad():
        probe = image.pooled(torch.zeros(1, 3, preprocess.size, preprocess.size))
        embed = image.project(probe)
    return Towers(image, text, preprocess, int(embed.shape[1]), int(probe.shape[1]), weight_hash)


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names and bytes of all tensors: identifies weights that came from no single file."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _looks_like_path(source: str) -> bool:
    return os.sep in source or source.endswith((".pt", ".pth", ".bin", ".safetensors"))


def _check_file(path: Path, name: str) -> str:
    if not path.is_file():
        raise DataError(
            f"weight file {path.name} is missing",
            str(path.absolute()),
            f"put the weights of {name} there, or set backbone.pretrained to where they are",
        )
    digest = sha256_file(path)
    if digest in OPENAI_WEIGHTS:
        _demand_quick_gelu(name, True, f"{path} (OpenAI's {OPENAI_WEIGHTS[digest]})")
    return digest


class _Quiet(logging.Filter):
    """Keeps one warning back, whose reason is about to be removed."""

    def __init__(self, start: str) -> None:
        super().__init__()
        self.start = start

    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(self.start)


def _is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive, as the weight files on OpenAI's own server are."""
    with suppress(zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())
    return False


def _from_torchscript(name: str, path: Path) -> Any:
    """An open_clip model with the tensors of OpenAI's own file, whose hash the caller knows: such a file may hold
    code.
    """
    import open_clip

    quiet = _Quiet("No pretrained weights loaded")
    logging.getLogger().addFilter(quiet)
    try:
        model = open_clip.create_model(name, pretrained=None)
    finally:
        logging.getLogger().removeFilter(quiet)
    load: Callable[..., Any] = torch.jit.load
    state = load(str(path), map_location="cpu").state_dict()
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


def _demand_quick_gelu(name: str, needed: bool, source: str) -> None:
    import open_clip

    has = bool((open_clip.get_model_config(name) or {}).get("quick_gelu", False))
    if needed and not has:
        raise ConfigError(
            f"backbone.name = {name!r} runs GELU, but these weights were trained with QuickGELU",
            source,
            f"set backbone.name: {name}-quickgelu",
        )


def _weights_error(settings: Backbone, error: Exception) -> DataError:
    reason = (  # of a KeyError the text alone says nothing
        f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    )
    wanted = f"weights of {settings.name}"
    if settings.pretrained.startswith("local-dir:") or _looks_like_path(settings.pretrained):
        return DataError(
            f"cannot load {wanted}: {reason}", settings.pretrained, "use the weight file that belongs to this model"
        )
    return DataError(
        f"cannot get {wanted}, tag {settings.pretrained!r}: {reason}",
        "open_clip's download",
        f"on a machine with a network run `python -c \"import open_clip; open_clip.create_model('{settings.name}',"
        f" pretrained='{settings.pretrained}')\"`, copy the file here and set backbone.pretrained:"
        " path/to/open_clip_model.safetensors",
    )


def _tokenizer(name: str, settings: Backbone) -> Callable[..., Tensor]:
    import open_clip

    try:
        tokenizer: Callable[..., Tensor] = open_clip.get_tokenizer(name)
    except (OSError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"cannot get the tokenizer of {settings.name}: {reason}",
            "open_clip.get_tokenizer",
            "save model, config and tokenizer to a folder and set backbone.pretrained: local-dir:FOLDER",
        ) from None
    return tokenizer


class _seeded:
    """Random weights come from a fixed seed, so that every stage sees the same ones."""

    def __init__(self, active: bool) -> None:
        self.active = active

    def __enter__(self) -> None:
        if self.active:
            self.state = torch.random.get_rng_state()
            torch.manual_seed(0)

    def __exit__(self, *arguments: object) -> None:
        if self.active:
            torch.random.set_rng_state(self.state)
