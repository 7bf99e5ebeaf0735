"""Pooled features of a frozen image tower, computed once per picture and view and kept in the state folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from capnet.config import settings_hash
from capnet.contracts import read_cached_tensors, write_tensors
from capnet.data.images.stream import stream, without_faults
from capnet.data.images.transform import Transform
from capnet.errors import DataError
from capnet.progress import bar
from capnet.runtime import Machine
from capnet.state import state_dir


def pooled_features(
    pooled: Callable[[Tensor], Tensor],
    weight_hash: str,
    rows: pd.DataFrame,
    root: Path,
    transform: Transform,
    machine: Machine,
    threads: int,
    what: str,
    concurrent: bool = False,
) -> Tensor:
    """Float features [picture, view, pooled] of a frozen tower, from the state folder where they are already there.

    ``concurrent`` is ``stream``'s.
    """
    if rows["sha256"].isna().any():  # the cache goes by content
        todo = "set ingest.images: decode or header, or give the label table a column sha256"
        raise DataError(
            f"{int(rows['sha256'].isna().sum())} pictures have no hash, because ingest opened none", what, todo
        )
    key = settings_hash(
        {
            "rows": list(rows["sha256"]),
            "weights": weight_hash,
            "look": transform.key(),
            "bf16": machine.bf16,
            "device": machine.device.type,
        }
    )
    path = state_dir("features") / f"{key}.safetensors"
    cached = read_cached_tensors(path, {"features": (len(rows), None, None)})
    if cached is not None:
        return cached["features"]
    parts = stream(pooled, transform.items(rows), root, transform, machine, threads, len(rows), concurrent)
    with bar(f"features of {what} pictures", len(rows)) as advance:
        found: list[Tensor] = []
        for part in without_faults(parts, root):
            found.append(part.features)
            advance(len(part.items))
    features = torch.cat(found) if found else torch.empty(0, 1, 1)
    if not bool(torch.isfinite(features).all()):
        bad = rows["path"][(~torch.isfinite(features).all(dim=2).all(dim=1)).numpy()].tolist()
        raise DataError(
            f"features are not finite for {len(bad)} pictures, e.g. {bad[0]}",
            what,
            "look at these pictures, or set runtime.precision: fp32",
        )
    write_tensors(path, {"features": features}, {"pictures": len(rows)})
    return features
