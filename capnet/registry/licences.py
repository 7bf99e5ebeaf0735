"""Under which licence the images are; that of the backbone's weights is in its entry in capnet/model/backbones."""

from __future__ import annotations

import re
from pathlib import Path

FILES = re.compile(r"(ATTRIBUTION|LICEN[CS]E|COPYING)(\.(md|txt|rst))?", re.IGNORECASE)
LONGEST = 4000  # characters of a licence file that a card quotes


def data_licence(stated: str, root: Path) -> str:
    """The licence of the images.

    Args:
        stated: ``register.data_licence``.
        root: the data folder.

    Returns:
        ``stated``, else the text of ATTRIBUTION, LICENSE or COPYING in ``root``; "" without any of them.
    """
    if stated.strip():
        return stated.strip()
    try:
        paths = sorted(path for path in root.iterdir() if FILES.fullmatch(path.name) and path.is_file())
        texts = [path.read_text(encoding="utf-8", errors="replace").strip() for path in paths]
    except OSError:
        return ""
    text = "\n\n".join(text for text in texts if text)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."
