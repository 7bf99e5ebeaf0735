"""Names, labels and annotations that a Kubernetes API server takes; a stand-in for its validation.

Sources, by the name that a rule bears: k8s.io/apimachinery v0.33.0, pkg/util/validation/validation.go (names);
kubernetes v1.33, pkg/apis/core/validation/validation.go (core).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"  # names: dns1123LabelFmt
SUBDOMAIN = rf"{LABEL}(\.{LABEL})*"  # names: dns1123SubdomainFmt
QUALIFIED = r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"  # names: qualifiedNameFmt, and of label values


def is_label(text: str) -> bool:
    return len(text) <= 63 and bool(re.fullmatch(LABEL, text))


def is_subdomain(text: str) -> bool:
    return len(text) <= 253 and bool(re.fullmatch(SUBDOMAIN, text))


def is_key(text: str) -> bool:
    """A key of a label or annotation, a resource with a domain: prefix/name (names: IsQualifiedName)."""
    prefix, slash, name = text.rpartition("/")
    return len(name) <= 63 and bool(re.fullmatch(QUALIFIED, name)) and (not slash or is_subdomain(prefix))


def labels(items: dict[str, str], where: str) -> Iterator[str]:
    for key, value in items.items():
        if not is_key(key):
            yield f"{where}: {key!r} is no qualified name"  # names: IsQualifiedName
        if len(value) > 63 or (value and not re.fullmatch(QUALIFIED, value)):
            yield f"{where}: {value!r} is no value of a label"  # names: IsValidLabelValue


def metadata(item: dict[str, Any], name_of: Any = is_subdomain) -> Iterator[str]:
    name = item["metadata"].get("name", "")
    if not name_of(name):
        yield f"metadata.name: {name!r}"  # core: ValidateObjectMeta
    yield from labels(item["metadata"].get("labels", {}), "metadata.labels")
    annotations = item["metadata"].get("annotations", {})
    yield from (f"metadata.annotations: {key!r}" for key in annotations if not is_key(key.lower()))
    if sum(len(key) + len(value) for key, value in annotations.items()) > 256 * 1024:
        yield "metadata.annotations: must have at most 262144 bytes"  # core: TotalAnnotationSizeLimitB
