"""Parts of a large JSON file one at a time, in little memory (ijson)."""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from capnet.errors import DataError

BUFFER = 1 << 20


def items(path: Path, part: str, todo: str) -> Iterator[dict[str, Any]]:
    """The objects of the list ``part`` of the top-level object, in their order.

    Raises DataError where the file cannot be read or holds something else there.
    """
    import ijson

    try:
        with open(path, "rb") as file:
            if file.read(len(BOM_UTF8)) != BOM_UTF8:
                file.seek(0)
            for item in ijson.items(file, f"{part}.item", buf_size=BUFFER, use_float=True):
                if not isinstance(item, dict):
                    raise DataError(f"{part} holds {str(item)[:60]!r}, which is no object", str(path), todo)
                yield item
    except OSError as error:
        raise DataError(f"cannot read the annotations: {error.strerror}", str(path), todo) from None
    except (ijson.JSONError, UnicodeDecodeError) as error:
        raise DataError(f"not valid JSON: {' '.join(str(error).split())[:200]}", str(path), todo) from None
