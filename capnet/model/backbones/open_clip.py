"""Any model that open_clip lists: one general entry, because open_clip knows architecture, normalisation and files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from capnet.model.backbones.entry import BackboneEntry, Licence
from capnet.model.backbones.openai_weights import OPENAI_WEIGHTS

if TYPE_CHECKING:
    from capnet.config import Backbone
    from capnet.model.towers import Towers

OPENAI = Licence(
    "MIT (OpenAI's CLIP; its model card calls untested deployments out of scope)", ("https://github.com/openai/CLIP",)
)
LAION = Licence("MIT (LAION and DataComp, with open_clip)", ("https://github.com/mlfoundations/open_clip",))
SIGLIP = Licence("Apache-2.0 (Google's SigLIP)", ("https://github.com/google-research/big_vision",))
PERCEPTION = Licence(
    "Apache-2.0 (Meta's Perception Encoder)", ("https://github.com/facebookresearch/perception_models",)
)
CLIPA = Licence("Apache-2.0 (CLIPA)", ("https://github.com/UCSC-VLAA/CLIPA",))
METACLIP = Licence(
    "CC BY-NC 4.0 (Meta's MetaCLIP): no commercial use", ("https://github.com/facebookresearch/MetaCLIP",)
)
APPLE = Licence(
    "Apple's own terms for the weights: read them before the model is used or passed on",
    ("https://huggingface.co/apple",),
)


def _load(entry: BackboneEntry, settings: Backbone, size: int, names: Sequence[str]) -> Towers:
    from capnet.model.towers.open_clip_weights import load_open_clip

    return load_open_clip(settings, size, [name for name in names if name != entry.name])


OPEN_CLIP = BackboneEntry(
    name="open_clip",
    pretrained="openai",
    description="a model of open_clip",
    load=_load,
    licences={
        "openai": OPENAI,
        **dict.fromkeys(
            ("laion", "laion2b_", "datacomp_", "commonpool_", "frozen_laion", "mscoco_finetuned_laion"), LAION
        ),
        "laion2b": CLIPA,
        "webli": SIGLIP,
        "metaclip": METACLIP,
        "meta": PERCEPTION,
        **dict.fromkeys(("dfn", "datacompdr"), APPLE),
    },
    published_files={"openai": OPENAI_WEIGHTS},
)
BACKBONES = (OPEN_CLIP,)
