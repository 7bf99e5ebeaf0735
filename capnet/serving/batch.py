"""Batch prediction in parts: one model for all, every part its share of the images, one table and one drift report at
the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise, zip_longest
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from capnet.config import Params
from capnet.contracts import read_json, reading, write_json
from capnet.contracts.files import replacing
from capnet.data.sources.root import is_remote
from capnet.errors import ContractError, DataError, counted, some
from capnet.evaluation.thresholds_file import read_thresholds, thresholds_and_calibration
from capnet.serving.drift import Drift
from capnet.serving.image_source import Source, list_images, remote_images
from capnet.serving.output import FIRST, SCORE, are_scores, row_groups, schema_of
from capnet.serving.predict import predict

TABLE = "predictions.parquet"
ROWS = 1024  # of each part at a time


def fetch_model(params: Params, address: str, folder: Path) -> str:
    """Download a registered model, so that a champion that changes meanwhile does not split the batch.

    Args:
        params: whose section register says where the registry is.
        address: models:/NAME@ALIAS, models:/NAME/VERSION or models:/NAME.
        folder: that the model is written to.

    Returns:
        The version's name, for messages.

    Raises:
        ConfigError: ``address`` is no address of a registered model.
        GateError: the gate refuses it.
    """
    from capnet.serving.fetch import fetch_version

    artifacts, name = fetch_version(params.register_, address, folder)
    write_json(folder / "source.json", {"name": name, "folder": artifacts.relative_to(folder).as_posix()})
    return name


def model_location(folder: Path) -> tuple[Path, str]:
    """Where ``fetch_model`` put the model, and its name."""
    source = read_json(folder / "source.json")
    with reading(folder / "source.json"):
        return folder / source["folder"], str(source["name"])


def part_of(params: Params, root: Path, part: int, parts: int) -> Source:
    """Every ``parts``-th image from number ``part`` on; the same list gives the same parts.

    Args:
        params: whose section data says how a remote is read.
        root: folder of the images, where ``data.root`` is no remote; images of a remote are copied to the state folder.
        part: from 0 on.
        parts: number of parts.

    Raises:
        DataError: there is no image at all; a part may be empty.
    """
    if is_remote(params.data, root):
        return remote_images(params.data, lambda names: names[part::parts])
    whole = list_images(str(root))
    return replace(whole, names=whole.names[part::parts])


def predict_part(params: Params, model: Path, root: Path, part: int, parts: int, out: Path) -> dict[str, float]:
    """Write predictions.parquet for one part; a part without images writes nothing.

    Args:
        params: sections data and runtime.
        model: folder that ``fetch_model`` filled.
        root, part, parts: as in ``part_of``.
        out: folder of the table.

    Returns:
        Numbers ``pictures`` and, of these, ``not_read``.
    """
    from capnet.serving.engine import load_served

    out.mkdir(parents=True, exist_ok=True)
    location, name = model_location(model)
    source = part_of(params, root, part, parts)
    if not source.names:
        return {"pictures": 0.0, "not_read": 0.0}
    served = load_served(location / "model", location / "thresholds.json", params.runtime)
    done = predict(served, name, source, out / TABLE)
    return {"pictures": float(done.images), "not_read": float(done.not_read)}


def merge_parts(model: Path, parts: Sequence[Path], out: Path) -> dict[str, float]:
    """Write one table, sorted by path, and drift.json where the model has a reference.

    Part p of P has the images p, p + P, p + 2 P ... of a sorted list, so the same rows of all parts are together the
    next ones of the list: memory stays constant.

    Args:
        model: folder that ``fetch_model`` filled.
        parts: folders that ``predict_part`` wrote, in any order.
        out: folder of the table.

    Returns:
        Numbers ``pictures``, ``not_read`` and, with a reference, ``drifted_classes``.

    Raises:
        DataError: no part has an image.
        ContractError: a part is damaged or not whole, or the parts are of different lists or models.
    """
    paths = [folder / TABLE for folder in parts if (folder / TABLE).is_file()]
    if not paths:
        raise DataError("no part has an image", "predict", "correct --pictures")
    first, *others = map(_columns, paths)
    sizes = {str(folder / TABLE): _rows(folder / TABLE) for folder in parts}
    if max(sizes.values()) - min(sizes.values()) > 1:
        least, most = min(sizes, key=sizes.__getitem__), max(sizes.values())
        what = f"a part has {counted(sizes[least], 'image')} where another has {most:,}: it is not whole"
        raise ContractError(what, least, "run the whole pipeline again")
    if any(names != first for names in others):
        raise ContractError("the parts name different classes", "predict", "run the whole pipeline again")
    columns = first[len(FIRST) :]
    schema = schema_of([name.removeprefix(SCORE) for name in columns])
    out.mkdir(parents=True, exist_ok=True)
    location, _ = model_location(model)
    drift = None
    if (location / "reference.json").is_file():
        thresholds, _ = thresholds_and_calibration(read_thresholds(location / "thresholds.json"))
        drift = Drift(read_json(location / "reference.json"), thresholds)
    images = not_read = 0
    last = ""
    with replacing(out / TABLE) as temporary, row_groups(temporary, schema) as add:
        for batches in zip_longest(*(_batches(path, schema) for path in paths)):
            table = pa.Table.from_batches([batch for batch in batches if batch is not None]).sort_by("path")
            names = [last, *table["path"].to_pylist()]
            if any(name >= following for name, following in pairwise(names)):
                raise ContractError("the parts are not of one list", "predict", "run the whole pipeline again")
            last = names[-1]
            add(table)
            good = table.filter(pc.equal(table["fault"], ""))
            images, not_read = images + len(table), not_read + len(table) - len(good)
            if drift is not None:
                drift.add(np.stack([good[name].to_numpy() for name in columns], axis=1).astype(np.float32))
    figures = {"pictures": float(images), "not_read": float(not_read)}
    if drift is not None:
        report = drift.report()
        write_json(out / "drift.json", report)
        figures["drifted_classes"] = float(sum(item["drifted"] for item in report["classes"]))
    return figures


def _columns(path: Path) -> list[str]:
    """Names of a part's columns; raises ContractError where ``predict`` has not written it."""
    with reading(path):
        names: list[str] = pq.read_schema(path).names
        if names[: len(FIRST)] != FIRST or not all(name.startswith(SCORE) for name in names[len(FIRST) :]):
            raise ValueError(f"no table of predictions: its columns are {some(names)}")
        return names


def _rows(path: Path) -> int:
    """Images of a part, 0 where it has written nothing."""
    if not path.is_file():
        return 0
    with reading(path):
        return int(pq.read_metadata(path).num_rows)


def _batches(path: Path, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The rows of a part, some at a time; raises ContractError where it is damaged."""
    with reading(path), pq.ParquetFile(path) as file:
        if not file.schema_arrow.equals(schema):
            raise ValueError("its columns hold other types than predictions have")
        for batch in file.iter_batches(ROWS):
            batch.validate(full=True)
            if batch["path"].null_count or batch["fault"].null_count:
                raise ValueError("a path or a fault is empty")
            good = batch.filter(pc.equal(batch["fault"], ""))
            if wrong := [name for name in schema.names[len(FIRST) :] if not are_scores(good[name])]:
                raise ValueError(f"{wrong[0]} has values that are no score from 0 to 1")
            yield batch
