"""What lets a model folder load where the backbone's files are not: the image tower and the class features, in one
safetensors file.

The text tower stays out. Once training is over class features are constants, and nothing that scores images reads a
text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from capnet.config import Prompt, Train
from capnet.contracts import read_tensors, sha256_file, write_tensors
from capnet.errors import ContractError
from capnet.model.capnet import CapNet, ClassFeatures
from capnet.model.towers import ImageTower, Preprocess, Towers, tensors_digest
from capnet.model.towers.image_size import set_image_size
from capnet.model.towers.text import TextTower

PACKED_FILE = "packed.safetensors"
IMAGE, REFINED, ZERO_SHOT = "image.", "classes.refined", "classes.zero_shot"
TEXT_PARTS = ("prompt.", "gcn.", "text_adapters.")  # trained tensors that only class features depend on


class PackedCapNet(CapNet):
    """A trained CapNet without its text parts: class features are what they were when it was packed."""

    refined: Tensor  # [class, embed]

    def __init__(self, towers: Towers, features: ClassFeatures, settings: Train) -> None:
        image_only = settings.adapter.model_copy(update={"towers": "image"})
        gcn = settings.gcn.model_copy(update={"enabled": False})
        reduced = settings.model_copy(update={"prompt": Prompt(enabled=False), "gcn": gcn, "adapter": image_only})
        super().__init__(towers, [], torch.empty(0, 0), features.zero_shot, reduced)
        self.register_buffer("refined", features.refined, persistent=False)

    def class_features(self, *arguments: Any) -> ClassFeatures:
        """The packed ones, unit [class, embed]."""
        return ClassFeatures(self.refined, self.hand_written)

    def load_trained(self, tensors: Mapping[str, Tensor], where: str) -> None:
        super().load_trained(
            {name: tensor for name, tensor in tensors.items() if not name.startswith(TEXT_PARTS)}, where
        )


def write_backbone(folder: Path, model: CapNet) -> None:
    """Write packed.safetensors beside the model's other files.

    Args:
        folder: the model folder that ``model`` was loaded from.
        model: with both towers.
    """
    towers = model.towers
    with torch.no_grad():
        features = model.class_features()
    tensors = {f"{IMAGE}{name}": tensor for name, tensor in towers.image.visual.state_dict().items()}
    tensors |= {REFINED: features.refined, ZERO_SHOT: features.zero_shot}
    metadata = {
        "architecture": dict(towers.architecture),
        "preprocess": asdict(towers.preprocess),
        "embed_dim": towers.embed_dim,
        "pooled_dim": towers.pooled_dim,
        "stage_dim": towers.stage_dim,
        "weight_hash": towers.weight_hash,
        "model_sha256": sha256_file(folder / "model.safetensors"),
        "tensors_sha256": tensors_digest(tensors),
    }
    write_tensors(folder / PACKED_FILE, tensors, metadata)


def read_backbone(folder: Path, settings: Train) -> PackedCapNet:
    """The model of a packed folder, its trained tensors not yet in it.

    Args:
        folder: a model folder with packed.safetensors.
        settings: those that it was trained with.

    Raises:
        ContractError: the file was changed, or was packed for other trained tensors, on which class features depend.
    """
    path = folder / PACKED_FILE
    tensors, metadata = read_tensors(path, mapped=True)
    if tensors_digest(tensors) != metadata.get("tensors_sha256"):
        raise ContractError(
            "the packed backbone's sha256 is not the one that was written with it",
            str(path),
            "get the model from its store again",
        )
    if sha256_file(folder / "model.safetensors") != metadata.get("model_sha256"):
        raise ContractError(
            "the backbone was packed for other trained tensors",
            str(path),
            "get the model from its store again, or register it again",
        )
    visual = build_visual(metadata["architecture"])
    visual.load_state_dict(
        {name.removeprefix(IMAGE): tensor for name, tensor in tensors.items() if name.startswith(IMAGE)}
    )
    visual.requires_grad_(False).eval()
    saved: dict[str, Any] = metadata["preprocess"]
    preprocess = Preprocess(saved["size"], tuple(saved["mean"]), tuple(saved["std"]), saved["interpolation"])
    stage_dim = metadata.get("stage_dim", 0)
    towers = Towers(
        ImageTower(visual, stages=stage_dim > 0),
        TextTower(_no_text),
        preprocess,
        embed_dim=metadata["embed_dim"],
        pooled_dim=metadata["pooled_dim"],
        weight_hash=metadata["weight_hash"],
        architecture=metadata["architecture"],
        stage_dim=stage_dim,
    )
    return PackedCapNet(towers, ClassFeatures(tensors[REFINED].clone(), tensors[ZERO_SHOT].clone()), settings)


def build_visual(architecture: Mapping[str, Any]) -> Any:
    """open_clip's image tower with weights still to be set; its text tower is made as small as can be and dropped.

    Args:
        architecture: as in ``Towers``.
    """
    from open_clip.model import CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP

    vision = CLIPVisionCfg(**{**architecture["vision_cfg"], "timm_model_pretrained": False})
    text = CLIPTextCfg(context_length=4, vocab_size=4, width=8, heads=1, layers=1)
    visual = CustomTextCLIP(architecture["embed_dim"], vision, text, quick_gelu=architecture["quick_gelu"]).visual
    if architecture["resized"]:
        set_image_size(visual, architecture["resized"], "the packed image tower")
    return visual


def _no_text(*arguments: object) -> Tensor:
    raise ContractError("a packed model has no text tower", PACKED_FILE, "load the model folder that training wrote")
