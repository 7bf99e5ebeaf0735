"""Batch prediction in parts: one model for all, every part its share of the images, one table and one drift report at
the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from capnet.config import Params
from capnet.contracts import read_json, write_json
from capnet.data.sources.root import is_remote
from capnet.errors import ContractError, DataError
from capnet.serving.drift import drift_report
from capnet.serving.predict import SCORE, Source, list_images, predict, remote_images

TABLE = "predictions.parquet"


def fetch_model(params: Params, address: str, folder: Path) -> str:
    """Download a registered model, so that a champion that changes meanwhile does not split the batch; returns its
    name.
    """
    from capnet.serving.engine import fetch_version

    artifacts, name = fetch_version(params.register_, address, folder)
    write_json(folder / "source.json", {"name": name, "folder": artifacts.relative_to(folder).as_posix()})
    return name


def model_location(folder: Path) -> tuple[Path, str]:
    """Where ``fetch_model`` put the model, and its name."""
    source = read_json(folder / "source.json")
    return folder / source["folder"], str(source["name"])


def part_of(params: Params, root: Path, part: int, parts: int) -> Source:
    """Every ``parts``-th image from number ``part`` on, copied here where the root is remote; the same list gives the
    same parts.
    """
    if is_remote(params.data, root):
        return remote_images(params.data, part, parts)
    whole = list_images(str(root))
    return Source(whole.names[part::parts], whole.root)


def predict_part(params: Params, model: Path, root: Path, part: int, parts: int, out: Path) -> dict[str, float]:
    """Write ``out``/predictions.parquet for one part; a part without images writes nothing."""
    from capnet.serving.engine import load_served

    out.mkdir(parents=True, exist_ok=True)
    location, name = model_location(model)
    source = part_of(params, root, part, parts)
    if not source.names:
        return {"pictures": 0.0, "not_read": 0.0}
    served = load_served(location / "model", location / "thresholds.json", params.runtime)
    frame = predict(served, name, source, out / TABLE)
    return {"pictures": float(len(frame)), "not_read": float((frame["fault"] != "").sum())}


def merge_parts(model: Path, parts: Sequence[Path], out: Path) -> dict[str, float]:
    """Write one table, sorted by path, and drift.json where the model has a reference; returns counts and how many
    classes drifted.
    """
    tables = [pd.read_parquet(folder / TABLE) for folder in parts if (folder / TABLE).is_file()]
    if not tables:
        raise DataError("no part has an image", "predict", "correct --pictures")
    if len({tuple(table.columns) for table in tables}) != 1:
        raise ContractError("the parts name different classes", "predict", "run the whole pipeline again")
    table = pd.concat(tables, ignore_index=True).sort_values("path", ignore_index=True)
    out.mkdir(parents=True, exist_ok=True)
    table.to_parquet(out / TABLE, index=False)
    good = table[table["fault"] == ""]
    figures = {"pictures": float(len(table)), "not_read": float(len(table) - len(good))}
    location, _ = model_location(model)
    if (location / "reference.json").is_file():
        limits = np.array([float(item["threshold"]) for item in read_json(location / "thresholds.json")["classes"]])
        scores = good[[name for name in table.columns if name.startswith(SCORE)]].to_numpy(dtype=np.float32)
        report: dict[str, Any] = drift_report(read_json(location / "reference.json"), scores, limits)
        write_json(out / "drift.json", report)
        figures["drifted_classes"] = float(sum(item["drifted"] for item in report["classes"]))
    return figures
