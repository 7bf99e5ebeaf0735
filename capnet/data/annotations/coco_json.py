"""Large JSON files as COCO writes them, one object at a time in little memory (ijson)."""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard

from capnet.data.annotations.class_list import MOST_CLASSES
from capnet.data.annotations.plain_files import EXPORTS, open_plain
from capnet.errors import DataError

BUFFER = 1 << 20
DEEPEST = 64  # levels; COCO has 5
LONGEST_TEXT = 4 * BUFFER  # bytes; COCO's compressed masks have thousands
MOST_OBJECT = 16 * BUFFER  # bytes of an image or an annotation: empty lists take 20 times as much memory
LIST = 2  # level of the list that objects are in
NUMBER = re.compile(rb"(?<![0-9.eE+-])[0-9.eE+-]{5000}")  # a parser begins again where it waits for the rest of one
TEXT = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


class CocoJson:
    """A JSON file of lists of objects, refused where a parser would need much memory for it."""

    def __init__(self, path: Path, todo: str) -> None:
        """Look for such faults in all of the file.

        Args:
            path: of the JSON file.
            todo: what a user should do about a fault.

        Raises:
            DataError: it cannot be read, or is nested too deep, or a text, number or object in it is too long.
        """
        self.path, self._todo = path, todo
        try:
            with open_plain(path) as file:
                self._start = len(BOM_UTF8) if file.read(len(BOM_UTF8)) == BOM_UTF8 else 0
                fault = _fault(file, self._start)
        except OSError as error:
            raise self.error(f"cannot read the annotations: {error.strerror}") from None
        if fault:
            raise self.error(fault)

    def error(self, what: str, todo: str = "") -> DataError:
        """What is wrong with the file, for a user; ``todo``: what helps, if it is not what the file was made with."""
        return DataError(what, str(self.path), todo or self._todo)

    def items(self, part: str) -> Iterator[dict[str, Any]]:
        """The objects of one list of the top-level object, in their order.

        Args:
            part: the list's key, such as images.

        Raises:
            DataError: the file cannot be read, or holds something else there.
        """
        import ijson

        try:
            with open_plain(self.path) as file:
                file.seek(self._start)
                for item in ijson.items(file, f"{part}.item", buf_size=BUFFER, use_float=True):
                    if not isinstance(item, dict):
                        raise self.error(f"{part} holds {str(item)[:60]!r}, which is no object")
                    yield item
        except OSError as error:
            raise self.error(f"cannot read the annotations: {error.strerror}") from None
        except (ijson.JSONError, ValueError, OverflowError) as error:
            raise self.error(f"not valid JSON: {' '.join(str(error).split())[:200]}") from None


def _fault(file: BinaryIO, start: int) -> str:
    """What is wrong with how deep JSON is nested, or with the length of a text, number or object in it; empty where a
    parser takes it in little memory. A parser keeps the path to where it is: gigabytes at a hundred thousand levels.
    """
    import numpy as np

    file.seek(start)
    depth, rest, within = 0, b"", 0
    while part := file.read(BUFFER):
        plain = TEXT.sub(b"", rest + part)
        quote = plain.find(b'"')  # of a text that ends later
        plain, rest = (plain, b"") if quote < 0 else (plain[:quote], plain[quote:])
        if len(rest) > LONGEST_TEXT:
            return f"a text of more than {LONGEST_TEXT:,} bytes"
        if NUMBER.search(plain):
            return "a number of thousands of digits"
        within = 0 if depth <= LIST else within + len(part)
        steps = np.frombuffer(plain.translate(STEPS, NO_BRACKETS), dtype=np.int8)
        if len(steps):
            depths = depth + np.cumsum(steps, dtype=np.int64)
            if depths.max() > DEEPEST:
                return f"nested more than {DEEPEST} levels deep"
            within = 0 if depths.min() <= LIST else within
            depth = int(depths[-1])
        if within > MOST_OBJECT:
            return f"an object of more than {MOST_OBJECT:,} bytes"
    return ""


def read_categories(file: CocoJson) -> dict[int, str]:
    """Category names by id, in ascending order of the ids.

    Args:
        file: with a list of categories.

    Raises:
        DataError: there are none, or an entry is damaged or repeated.
    """
    categories: dict[int, str] = {}
    names: set[str] = set()
    for item in file.items("categories"):
        number, name = item.get("id"), item.get("name")
        if not is_whole(number) or not 0 <= number < 2**31 or not isinstance(name, str) or not name:
            what = f"category {str(item)[:80]} needs a name, and a whole number as its id"
            raise file.error(what, "correct the file")
        if number in categories or name in names:
            todo = "give one of them another name, or keep one and give the annotations of both its id"
            if number in categories:
                todo = "give each category an id of its own, in the annotations, too"
            raise file.error(f"category {name!r} (id {number}) appears twice", todo)
        categories[number] = name
        names.add(name)
        if len(names) > MOST_CLASSES:
            raise file.error(f"more than {MOST_CLASSES:,} categories")
    if not categories:
        raise DataError(
            "there are no categories, which a COCO file has", str(file.path), f"name another file; {EXPORTS}"
        )
    return dict(sorted(categories.items()))


def is_whole(value: Any) -> TypeGuard[int]:
    """Is that a whole number? Python takes true and false for 1 and 0."""
    return isinstance(value, int) and not isinstance(value, bool)


def pixels(value: Any) -> int | None:
    """A width or a height, where it is one."""
    return value if is_whole(value) and 0 < value < 2**31 else None
