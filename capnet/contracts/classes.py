"""classes.json: the ordered classes, their names in prompts and files, their training counts and buckets."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from capnet.contracts.files import SCHEMA, read_document, reading, write_json
from capnet.errors import ContractError

if TYPE_CHECKING:
    import numpy as np

BUCKETS = ("head", "medium", "tail")
SLUG = re.compile(r"[a-z0-9][a-z0-9-]*")
LONGEST_SLUG = 100  # MLflow takes 250 characters for a metric's name, a file system 255 bytes


@dataclass(frozen=True)
class ClassInfo:
    """One label. ``train_count`` and ``bucket`` are set by the split stage (-1 and "" before)."""

    name: str
    prompt_name: str
    slug: str
    critical: bool = False
    train_count: int = -1
    bucket: str = ""


_TYPES = get_type_hints(ClassInfo)


@dataclass(frozen=True)
class Classes:
    """The ordered labels; their order is the order of every column of scores."""

    items: tuple[ClassInfo, ...]

    def __len__(self) -> int:
        return len(self.items)

    @property
    def names(self) -> list[str]:
        return [item.name for item in self.items]

    @property
    def prompt_names(self) -> list[str]:
        return [item.prompt_name for item in self.items]

    @property
    def buckets(self) -> list[str]:
        """head, medium or tail of each class; "" before training rows are counted."""
        return [item.bucket for item in self.items]

    @property
    def critical(self) -> set[str]:
        """Names of the critical classes."""
        return {item.name for item in self.items if item.critical}

    @property
    def train_counts(self) -> np.ndarray:
        """int64 [class]."""
        import numpy as np

        return np.array([item.train_count for item in self.items], dtype=np.int64)

    @property
    def fingerprint(self) -> str:
        """sha256 over the ordered names: equal only for the same classes in the same order."""
        return hashlib.sha256(json.dumps(self.names).encode()).hexdigest()

    def prompt_fingerprint(self, template: str, weight_hash: str) -> str:
        """sha256 over prompt names, template and backbone weights: what a label graph depends on."""
        return hashlib.sha256(json.dumps([self.prompt_names, template, weight_hash]).encode()).hexdigest()

    def with_counts(self, counts: Sequence[int], buckets: tuple[int, int]) -> Classes:
        """The same classes with training counts and buckets.

        Args:
            counts: training positives of each class.
            buckets: head from the first count on, tail below the second.
        """
        head, tail = buckets

        def bucket(count: int) -> str:
            if count >= head:
                return "head"
            return "medium" if count >= tail else "tail"

        pairs = zip(self.items, counts, strict=True)
        return Classes(tuple(replace(item, train_count=int(n), bucket=bucket(n)) for item, n in pairs))


def slugify(name: str) -> str:
    """Up to LONGEST_SLUG lower-case ASCII letters, digits and hyphens: safe in file names and metric names."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:LONGEST_SLUG].rstrip("-")
    return slug or hashlib.sha256(name.encode()).hexdigest()[:8]


def unique_slugs(names: Sequence[str]) -> list[str]:
    """The slug of each name; one that an earlier name has already gets a number."""
    slugs, used = [], set()
    following: dict[str, int] = {}  # the next number of a slug: thirty thousand classes may share one
    for name in names:
        base = slug = slugify(name)
        number = following.get(base, 2)
        while slug in used:
            slug = f"{base}-{number}"
            number += 1
        following[base] = number
        used.add(slug)
        slugs.append(slug)
    return slugs


def make_classes(
    names: Sequence[str], prompt_names: Mapping[str, str] | None = None, critical: Sequence[str] = ()
) -> Classes:
    """Classes with unique slugs.

    Args:
        names: in the order of the classes.
        prompt_names: what a class is called in prompts, by name; a class that is missing, or has "", keeps its name.
        critical: names of critical classes.
    """
    called, marked = prompt_names or {}, set(critical)
    return Classes(
        tuple(
            ClassInfo(name, called.get(name) or name, slug, name in marked)
            for name, slug in zip(names, unique_slugs(names), strict=True)
        )
    )


def _class(item: Mapping[str, Any]) -> ClassInfo:
    """An entry of classes.json; raises TypeError where a field is missing, strange or of another type, and ValueError
    where its value is none that ``write_classes`` writes.
    """
    info = ClassInfo(**item)
    for name, kind in _TYPES.items():
        if type(getattr(info, name)) is not kind:
            raise TypeError(f"{name} of class {info.name!r} is {getattr(info, name)!r}")
    if info.bucket not in ("", *BUCKETS):
        raise ValueError(f"bucket of class {info.name!r} is {info.bucket!r}")
    if not SLUG.fullmatch(info.slug):
        raise ValueError(f"slug of class {info.name!r} is {info.slug!r}")
    if info.train_count < -1:
        raise ValueError(f"train_count of class {info.name!r} is {info.train_count}")
    return info


def _check_unique(classes: Classes) -> None:
    """Raises ValueError where two classes have one name or one slug."""
    for kind in ("name", "slug"):
        first: set[str] = set()
        for item in classes.items:
            value = getattr(item, kind)
            if value in first:
                raise ValueError(f"{kind} {value!r} is there twice")
            first.add(value)


def write_classes(path: Path, classes: Classes) -> None:
    """classes.json, with the fingerprint of the names in their order."""
    items = [asdict(item) for item in classes.items]
    write_json(path, {"schema": SCHEMA, "class_fingerprint": classes.fingerprint, "classes": items})


def read_classes(path: Path, expected_fingerprint: str = "") -> Classes:
    """What ``write_classes`` wrote.

    Args:
        path: classes.json.
        expected_fingerprint: of the classes that it must hold; "" takes any.

    Raises:
        ContractError: the file is missing, damaged or of another schema, or its fingerprint does not fit its names or
            is not the expected one.
    """
    content = read_document(path)
    with reading(path):
        classes = Classes(tuple(_class(item) for item in content["classes"]))
        _check_unique(classes)
    if classes.fingerprint != content.get("class_fingerprint"):
        todo = "edit data/classes.csv instead and run `dvc repro`"
        raise ContractError("class names were edited by hand", str(path), todo)
    if expected_fingerprint and classes.fingerprint != expected_fingerprint:
        todo = "run `dvc repro`: all stages must see the same class list"
        raise ContractError("made for other classes", str(path), todo)
    return classes
