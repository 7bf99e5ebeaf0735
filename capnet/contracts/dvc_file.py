"""What DVC wrote about an output."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Required

from pydantic import Field
from typing_extensions import TypedDict

from capnet.contracts.forms import Count, check


class DvcOutput(TypedDict, total=False):
    """An output in a .dvc file; its hash becomes a path in DVC's cache."""

    md5: Required[Annotated[str, Field(pattern=r"^[0-9A-Za-z]{1,128}(\.dir)?$")]]
    path: str
    nfiles: Count
    size: Count


def dvc_output(path: Path) -> dict[str, Any]:
    """What a .dvc file says of its first output: md5, path, nfiles, size and more; {} where there is no such file."""
    import yaml

    from capnet.yaml_text import MOST_LETTERS, read_yaml

    try:
        if not path.is_file() or path.stat().st_size > MOST_LETTERS:
            return {}
        output = {"path": "", "nfiles": 1, "size": 0, **read_yaml(path.read_text(encoding="utf-8"))["outs"][0]}
        check(DvcOutput, output)
        return output
    except (AttributeError, LookupError, OSError, RecursionError, TypeError, ValueError, yaml.YAMLError):
        return {}
