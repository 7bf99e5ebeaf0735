"""Made-up manifests, and the split stage on them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from capnet.config import Params, Split
from capnet.contracts import make_classes, read_split, write_classes, write_manifest
from capnet.stages import run


def manifest(
    folder: Path,
    labels: Sequence[Sequence[int]],
    n_classes: int,
    *,
    unknown: Sequence[Sequence[int]] | None = None,
    splits: Sequence[str | None] | None = None,
    ids: Sequence[str] | None = None,
    order: np.ndarray | None = None,
) -> Path:
    n = len(labels)
    ids = list(ids) if ids is not None else [f"p{number:06d}" for number in range(n)]
    frame = pd.DataFrame(
        {
            "image_id": ids,
            "path": [f"images/{image}.jpg" for image in ids],
            "labels": list(labels),
            "unknown": list(unknown) if unknown is not None else [[] for _ in range(n)],
            "width": 10,
            "height": 10,
            "sha256": [hashlib.sha256(image.encode()).hexdigest() for image in ids],
            "group": pd.Series([None] * n, dtype=object),
            "slice": pd.Series([None] * n, dtype=object),
            "given_split": pd.Series(list(splits) if splits is not None else [None] * n, dtype=object),
        }
    )
    folder.mkdir(parents=True)
    write_manifest(folder / "manifest.parquet", frame if order is None else frame.iloc[order])
    write_classes(folder / "classes.json", make_classes([f"class {c}" for c in range(n_classes)]))
    return folder


def split(source: Path, out: Path, **settings: Any) -> tuple[pd.DataFrame, dict]:
    metrics = run("split", Params(split=Split(**settings)), {"manifest": source}, {"split": out})
    frame = read_split(out / "split.parquet")
    counts = frame["split"].value_counts()
    assert metrics == {f"{name}_rows": float(counts.get(name, 0)) for name in ("train", "val", "test")}
    return frame, json.loads((out / "split.json").read_text())


def random_labels(n_rows: int, n_classes: int, seed: int, blank: float = 0.0) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    chosen = rng.random((n_rows, n_classes)) < np.maximum(0.4 / np.arange(1, n_classes + 1), 12 / n_rows)
    chosen[rng.random(n_rows) < blank] = False
    return [row.nonzero()[0].tolist() for row in chosen]
