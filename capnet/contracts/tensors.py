"""safetensors files, and graph.safetensors among them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capnet.contracts.classes import Classes
from capnet.contracts.files import AGAIN, SCHEMA, check_exists, check_schema, replace_file
from capnet.errors import ContractError

if TYPE_CHECKING:
    import torch


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]) -> None:
    """A safetensors file with JSON metadata and the schema version, in one entry: the library writes several in any
    order.
    """
    from safetensors.torch import save

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())}
    content = {"schema": SCHEMA, "metadata": dict(metadata)}
    replace_file(path, save(plain, metadata={"capnet": json.dumps(content, sort_keys=True)}))


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and metadata of a file written by write_tensors; raises ContractError where it is damaged."""
    from safetensors import SafetensorError, safe_open

    check_exists(path)
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("capnet", "{}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise ContractError(f"not a safetensors file: {error}", str(path), AGAIN) from None
    content = json.loads(text)
    check_schema(content, path)
    return tensors, content["metadata"]


def read_cached_tensors(path: Path) -> dict[str, torch.Tensor] | None:
    """Tensors of a cache file; None where there is none or where another version of this program wrote it."""
    try:
        return read_tensors(path)[0]
    except ContractError:
        return None


@dataclass(frozen=True)
class LabelGraph:
    """graph.safetensors: adjacency [class, class], un-normalised text features [class, embed]."""

    adjacency: torch.Tensor
    text_features: torch.Tensor
    # source, top_k, s, tau, normalisation, template, backbone, weight_hash, both fingerprints
    metadata: Mapping[str, Any]


def write_graph(path: Path, graph: LabelGraph) -> None:
    write_tensors(path, {"adjacency": graph.adjacency, "text_features": graph.text_features}, graph.metadata)


def read_graph(path: Path, classes: Classes) -> LabelGraph:
    """Read graph.safetensors; raises ContractError where it was made for other classes."""
    tensors, metadata = read_tensors(path)
    if metadata.get("class_fingerprint") != classes.fingerprint or tensors["adjacency"].shape[0] != len(classes):
        todo = "run `dvc repro`, or `capnet graph` after `capnet split`"
        raise ContractError("the label graph was made for other classes", str(path), todo)
    return LabelGraph(tensors["adjacency"], tensors["text_features"], metadata)
