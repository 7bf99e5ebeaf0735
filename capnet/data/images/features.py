"""Pooled features of a frozen image tower, from the feature store where it has them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from capnet.config import settings_hash
from capnet.data.images.store import FeatureStore, trim
from capnet.data.images.stored_features import StoredFeatures
from capnet.data.images.stream import EncodedBatch, stream, views_at_once, without_faults
from capnet.data.images.transform import Transform
from capnet.errors import DataError
from capnet.progress import Advance, bar
from capnet.runtime import Machine

KERNELS = 5  # raised where decoding gives other pixels, or towers compute the same function with other roundings


def pooled_features(
    pooled: Callable[[Tensor], Tensor],
    tower: str,
    rows: pd.DataFrame,
    root: Path,
    transform: Transform,
    machine: Machine,
    threads: int,
    what: str,
    concurrent: bool = False,
) -> StoredFeatures:
    """Features of a frozen tower from the feature store; those that it lacks are computed.

    Args:
        pooled: images [view, 3, size, size] -> features [view, ...].
        tower: stands for ``pooled`` in the store: equal ones must give equal features.
        rows: with ``path`` and ``sha256``.
        root: folder that the paths are relative to.
        transform: the views.
        machine: device, precision, workers, and the size of the store.
        threads: of the CPU.
        what: names the rows in the log and in errors.
        concurrent: as in ``stream``; however few images the store lacks, or they would have other roundings than in an
            empty store.

    Returns:
        [row, view, ...], rounded to 16 bits.

    Raises:
        DataError: images have no sha256 or another one, cannot be used, or have features that 16 bits cannot hold;
            names them.
    """
    if unhashed := int(rows["sha256"].isna().sum()):  # the store goes by content
        todo = "set ingest.images: decode or header, or give the label table a column sha256"
        raise DataError(f"{unhashed} pictures have no hash, because ingest opened none", what, todo)
    hashes = rows["sha256"].tolist()
    key = {
        "weights": tower,
        "transform": transform.key(),
        "bf16": machine.bf16,
        "device": machine.device.type,
        "kernels": KERNELS,
    }
    store = FeatureStore(settings_hash(key), transform.views)
    missing = store.missing(hashes)
    if missing:
        new = rows.iloc[missing]
        items, what = transform.items(new), f"features of {what} pictures"
        encode = in_whole_passes(pooled, views_at_once(machine)) if machine.device.type == "cpu" else pooled
        batches = stream(encode, items, root, transform, machine, threads, len(new), concurrent)
        with closing(batches), bar(what, len(new)) as advance:
            store.fill(new["sha256"].tolist(), _in_16_bits(without_faults(batches, root), what, advance))
    features = store.read(hashes)
    if missing:
        del store  # it keeps segments in use that these images do not need
        trim(machine.feature_bytes)
    return features


def in_whole_passes(pooled: Callable[[Tensor], Tensor], size: int) -> Callable[[Tensor], Tensor]:
    """``pooled`` in passes of ``size`` views: in smaller ones a vision transformer rounds in another way (measured), so
    the last features before a kill would have other bits than without it.

    Args:
        pooled: images [view, 3, size, size] -> features [view, ...].
        size: views of each pass; the last view is repeated where there are fewer.
    """

    def whole(views: Tensor) -> Tensor:
        if len(views) >= size:
            return pooled(views)
        repeated = views[-1:].expand(size - len(views), *views.shape[1:])
        return pooled(torch.cat([views, repeated]))[: len(views)]

    return whole


def _in_16_bits(batches: Iterable[EncodedBatch], what: str, advance: Advance) -> Iterator[np.ndarray]:
    """float16 [view, pooled] of each image: exactly what a tower gives under bf16 autocast, else rounded to 11 bits."""
    for batch in batches:
        half = batch.features.half()
        for item, features in zip(batch.items, half, strict=True):
            if not bool(torch.isfinite(features).all()):
                todo = "look at this picture, or set runtime.precision: fp32"
                raise DataError(f"features are not finite in 16 bits for {item.path}", what, todo)
            yield features.numpy()
        advance(len(half))
