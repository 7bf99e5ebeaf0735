"""A data.dvc of other pictures, and whether this machine draws the bytes of the one in git."""

from __future__ import annotations

from pathlib import Path

from capnet.data.demo import image_set as scene_set

EXACT = scene_set.differences_from_tested() == []
OTHER = "outs:\n- md5: 0123456789abcdef0123456789abcdef.dir\n  size: 1\n  nfiles: 1\n  hash: md5\n  path: data\n"


def describe(md5: str, path: str = "data") -> None:
    """Write one for this folder with this hash."""
    Path("data.dvc").write_text(
        OTHER.replace("0123456789abcdef0123456789abcdef.dir", md5).replace("path: data", f"path: {path}")
    )
