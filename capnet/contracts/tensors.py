"""safetensors files, and graph.safetensors among them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capnet.contracts.classes import Classes
from capnet.contracts.files import AGAIN, SCHEMA, check_exists, check_schema, reading, replace_file
from capnet.errors import CapnetError, ContractError
from capnet.machine_faults import refuse_unread

if TYPE_CHECKING:
    import torch

MOST_HEADER = 4 * 2**20  # bytes; a ViT-B's has 50 thousand


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]) -> None:
    """A safetensors file with JSON metadata and the schema version, in one entry: the library writes several in any
    order.

    Args:
        path: appears once the file is whole.
        tensors: by name, of any device.
        metadata: JSON content; equal content gives equal bytes.
    """
    from safetensors.torch import save

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())}
    content = {"schema": SCHEMA, "metadata": dict(metadata)}
    replace_file(path, save(plain, metadata={"capnet": json.dumps(content, sort_keys=True)}))


def read_tensors(path: Path, mapped: bool = False) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """What ``write_tensors`` wrote.

    Args:
        path: of the file.
        mapped: the tensors are pages of the file, for who copies them anyway; they change where it is written over.

    Returns:
        Tensors by name, and the metadata.

    Raises:
        ContractError: the file is missing, damaged or of another schema.
    """
    from safetensors import SafetensorError, safe_open

    check_exists(path)
    try:
        _check_header(path)
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("capnet", "{}")
            with reading(path):
                content = json.loads(text)
            check_schema(content, path)  # first: another program's file may be larger than the memory
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, MemoryError, OSError, RuntimeError, ValueError) as error:  # torch maps the file
        refuse_unread(error, path)
        raise ContractError(f"not a safetensors file: {error}", str(path), AGAIN) from None
    if not isinstance(content.get("metadata"), dict):
        raise ContractError("metadata is missing", str(path), AGAIN)
    if not mapped:  # here, where too little memory is not a fault of the file
        tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    return tensors, content["metadata"]


def _check_header(path: Path) -> None:
    """Raises ValueError where the list of tensors is longer than any model's: to read a million takes minutes."""
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
    if size > MOST_HEADER:
        raise ValueError(f"a header of {size:,} bytes, at most {MOST_HEADER:,} are read")


def check_tensors(
    tensors: Mapping[str, torch.Tensor], shapes: Mapping[str, tuple[int | None, ...]], path: Path
) -> None:
    """Check tensors that were read.

    Args:
        tensors: by name.
        shapes: what each must have, None for any length.
        path: of the file, for the message.

    Raises:
        ContractError: one is missing, has another shape, holds no floats, or holds a value that is not finite.
    """
    import torch

    problems = []
    for name, shape in shapes.items():
        if name not in tensors:
            problems.append(f"tensor {name} is missing")
            continue
        tensor = tensors[name]
        fits = tensor.ndim == len(shape) and all(b in (None, a) for a, b in zip(tensor.shape, shape, strict=True))
        if not fits or not tensor.is_floating_point():
            expected = "x".join("any" if length is None else str(length) for length in shape)
            problems.append(f"tensor {name} is {tensor.dtype} {tuple(tensor.shape)}, not floats {expected}")
        elif not bool(torch.isfinite(tensor).all()):
            problems.append(f"tensor {name} has values that are not finite")
    if problems:
        raise ContractError("; ".join(problems[:5]), str(path), AGAIN)


def read_cached_tensors(path: Path, shapes: Mapping[str, tuple[int | None, ...]]) -> dict[str, torch.Tensor] | None:
    """Tensors of a cache file.

    Args:
        path: of the file.
        shapes: as in ``check_tensors``.

    Returns:
        Tensors by name; None where there is no file, where it is damaged or cannot be read, or another version of this
        program wrote it.
    """
    try:
        tensors, _ = read_tensors(path)
        check_tensors(tensors, shapes, path)
    except CapnetError:
        return None
    return tensors


@dataclass(frozen=True)
class LabelGraph:
    """graph.safetensors: adjacency [class, class], un-normalised text features [class, embed]."""

    adjacency: torch.Tensor
    text_features: torch.Tensor
    # source, top_k, s, tau, normalisation, template, backbone, weight_hash, both fingerprints
    metadata: Mapping[str, Any]


def write_graph(path: Path, graph: LabelGraph) -> None:
    """graph.safetensors."""
    write_tensors(path, {"adjacency": graph.adjacency, "text_features": graph.text_features}, graph.metadata)


def read_graph(path: Path, classes: Classes) -> LabelGraph:
    """What ``write_graph`` wrote.

    Args:
        path: of the file.
        classes: that the graph must be over.

    Raises:
        ContractError: the file is missing or damaged, or was made for other classes.
    """
    tensors, metadata = read_tensors(path)
    check_tensors(tensors, {"adjacency": (None, None), "text_features": (None, None)}, path)
    lengths = [*tensors["adjacency"].shape, len(tensors["text_features"])]
    if metadata.get("class_fingerprint") != classes.fingerprint or set(lengths) != {len(classes)}:
        todo = "run `dvc repro`, or `capnet graph` after `capnet split`"
        raise ContractError("the label graph was made for other classes", str(path), todo)
    return LabelGraph(tensors["adjacency"], tensors["text_features"], metadata)
