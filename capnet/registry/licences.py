"""Under which licence the backbone's weights and the pictures are, as far as it is known; what is not known is said to
be unknown.
"""

from __future__ import annotations

import re
from pathlib import Path

UNKNOWN = "not known here: find out before the model is used or passed on"
LIT = "image tower Apache-2.0 (EfficientNet-Lite, trained on ImageNet), text tower Apache-2.0 (all-MiniLM-L6-v2)"
OPENAI = "MIT (OpenAI's CLIP; its model card calls untested deployments out of scope)"
TAGS = (  # start of an open_clip tag: what its publisher says about the weights
    (("openai",), OPENAI),
    (
        ("laion", "datacomp_", "datacomp1b", "commonpool_", "frozen_laion", "mscoco_finetuned_laion"),
        "MIT (LAION and DataComp, with open_clip)",
    ),
    (("webli",), "Apache-2.0 (Google's SigLIP)"),
    (("metaclip", "meta"), "CC BY-NC 4.0 (Meta's MetaCLIP): no commercial use"),
    (("dfn", "datacompdr"), "Apple's own terms for the weights: read them before the model is used or passed on"),
)
FILES = re.compile(r"(ATTRIBUTION|LICEN[CS]E|COPYING)(\.(md|txt|rst))?", re.IGNORECASE)
LONGEST = 4000  # characters of a licence file that a card quotes


def backbone_licence(name: str, pretrained: str, is_openai: bool = False) -> str:
    """Of the backbone's weights; ``is_openai``: the weight file's sha256 is one that OpenAI published."""
    if name.startswith("lit-"):
        return LIT
    if is_openai:
        return OPENAI
    if pretrained == "random":
        return "none: the weights are random numbers"
    return next((licence for starts, licence in TAGS if pretrained.startswith(starts)), UNKNOWN)


def data_licence(said: str, root: Path) -> str:
    """What the setting says, else the text of ATTRIBUTION, LICENSE or COPYING in the data folder; "" where nobody says
    anything.
    """
    if said.strip():
        return said.strip()
    try:
        found = sorted(path for path in root.iterdir() if FILES.fullmatch(path.name) and path.is_file())
        texts = [path.read_text(encoding="utf-8", errors="replace").strip() for path in found]
    except OSError:
        return ""
    text = "\n\n".join(text for text in texts if text)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."
