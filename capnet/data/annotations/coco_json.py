"""Large JSON files as COCO writes them, one object at a time in little memory (ijson)."""

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


def read_categories(path: Path, todo: str) -> dict[int, str]:
    """Category names by id, in ascending order of the ids; raises DataError where there are none or an entry is
    damaged.
    """
    categories: dict[int, str] = {}
    for item in items(path, "categories", todo):
        number, name = item.get("id"), item.get("name")
        if not isinstance(number, int) or not 0 <= number < 2**31 or not isinstance(name, str) or not name:
            raise DataError(f"category {str(item)[:80]} needs an id and a name", str(path), todo)
        if number in categories or name in categories.values():
            raise DataError(f"category {name!r} (id {number}) appears twice", str(path), todo)
        categories[number] = name
    if not categories:
        raise DataError("there are no categories", str(path), todo)
    return dict(sorted(categories.items()))


def pixels(value: Any) -> int | None:
    """A width or a height, where it is one."""
    return value if isinstance(value, int) and 0 < value < 2**31 else None
