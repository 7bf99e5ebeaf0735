"""KServe's and Kubernetes' own types as a check of manifests, and what KServe's storage initializer does."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
import types
from pathlib import Path
from typing import Any

import kubernetes.client
from services.s3_server import S3Server

PLAIN = {
    "str": str,
    "int": int,
    "bool": bool,
    "float": (int, float),
    "object": object,
    "datetime": str,
    "IntOrString": (int, str),
    "ResourceQuantity": str,
}


def kserve_models() -> types.ModuleType:
    """The generated types of KServe's package. Its server, which the package imports when it is imported itself, is not
    needed.
    """
    spec = importlib.util.find_spec("kserve")
    assert spec is not None, "KServe's types are not installed: run these tests by `make test-services`"
    package = types.ModuleType("kserve")
    package.__path__ = list(spec.submodule_search_locations or [])
    sys.modules["kserve"] = package
    try:
        return importlib.import_module("kserve.models")
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "kserve"]:
            del sys.modules[name]


def faults(value: Any, kind: str, models: types.ModuleType, where: str = "") -> list[str]:
    """What Kubernetes would not take: unknown fields and values of another kind, by the types' own tables."""
    listed, mapped = re.fullmatch(r"list\[(.*)\]", kind), re.fullmatch(r"dict\(str, (.*)\)", kind)
    if listed:
        return [
            fault
            for number, item in enumerate(value)
            for fault in faults(item, listed[1], models, f"{where}[{number}]")
        ]
    if mapped:
        return [fault for key, item in value.items() for fault in faults(item, mapped[1], models, f"{where}.{key}")]
    if kind in PLAIN:
        return [] if isinstance(value, PLAIN[kind]) else [f"{where}: {value!r} is no {kind}"]  # type: ignore[arg-type]
    model = getattr(models, kind, None) or getattr(kubernetes.client, kind)
    names = {json_name: name for name, json_name in model.attribute_map.items()}
    if not isinstance(value, dict):
        return [f"{where}: {value!r} is no {kind}"]
    result = [f"{where}: no field {key}" for key in value if key not in names]
    return result + [
        fault
        for key in value
        if key in names
        for fault in faults(value[key], model.openapi_types[names[key]], models, f"{where}.{key}")
    ]


def fetch(server: S3Server, address: str, target: Path) -> None:
    """As KServe's storage initializer: everything below the address, without its prefix."""
    bucket, _, prefix = address.removeprefix("s3://").partition("/")
    client = server.client()
    objects = client.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/")["Contents"]
    for item in objects:
        path = target / item["Key"].removeprefix(f"{prefix}/")
        path.parent.mkdir(parents=True, exist_ok=True)
        client.download_file(bucket, item["Key"], str(path))
    assert (target / "MLmodel").is_file()
