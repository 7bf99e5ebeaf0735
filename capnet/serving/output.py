"""Predictions as Parquet, CSV or MegaDetector JSON, written some images at a time."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from capnet.contracts.csv_files import CsvLines
from capnet.contracts.parquet import DAMAGED
from capnet.errors import some

if TYPE_CHECKING:
    from capnet.serving.engine import Served

log = logging.getLogger(__name__)

FIRST = ["path", "labels", "fault"]  # columns of the table
SCORE = "score "  # columns of the table, before the class's name
SEPARATOR = "|"  # of labels in CSV
GROUP_ROWS = 8192  # images in a row group of Parquet: small enough for memory, large enough to be read fast

Add = Callable[[pd.DataFrame], None]  # path, fault, scores
Writer = Callable[[Path, "Served", str], AbstractContextManager[Add]]


def wide(frame: pd.DataFrame, served: Served) -> pd.DataFrame:
    """The table of predictions.

    Args:
        frame: columns path, fault and scores (None with a fault), one row an image.
        served: with classes and thresholds.

    Returns:
        One row an image: path, labels (names over their thresholds), fault, and ``score NAME`` of every class, NaN
        with a fault.
    """
    scores = np.full((len(frame), len(served.names)), np.nan, dtype=np.float32)
    for number, row in enumerate(frame["scores"]):
        if row is not None:
            scores[number] = row
    decided = scores >= served.class_thresholds
    labels = [[name for name, present in zip(served.names, row, strict=True) if present] for row in decided]
    columns = pd.DataFrame(scores, columns=[f"{SCORE}{name}" for name in served.names])
    return pd.concat(
        [pd.DataFrame({"path": frame["path"], "labels": labels, "fault": frame["fault"]}), columns], axis=1
    )


@contextmanager
def row_groups(path: Path, schema: pa.Schema) -> Iterator[Callable[[pa.Table], None]]:
    """Write tables as one Parquet file, whose row groups have GROUP_ROWS images however small the tables are."""
    waiting: list[pa.Table] = []

    def flush() -> None:
        if waiting:
            writer.write_table(pa.concat_tables(waiting))
            waiting.clear()

    def add(table: pa.Table) -> None:
        waiting.append(table)
        if sum(map(len, waiting)) >= GROUP_ROWS:
            flush()

    with pq.ParquetWriter(path, schema) as writer:
        yield add
        flush()


def schema_of(classes: Sequence[str]) -> pa.Schema:
    """The columns of the table with their types, for classes of these names."""
    fields = [("path", pa.string()), ("labels", pa.list_(pa.string())), ("fault", pa.string())]
    return pa.schema([*fields, *((f"{SCORE}{name}", pa.float32()) for name in classes)])


@contextmanager
def parquet(path: Path, served: Served, model_key: str) -> Iterator[Add]:
    """The table ``wide`` makes, by row groups.

    Args:
        path: of the file.
        served: with classes and thresholds.
        model_key: not written in this format.

    Yields:
        A function that adds a table with columns path, fault and scores.
    """
    schema = schema_of(served.names)
    with row_groups(path, schema) as add:
        yield lambda frame: add(pa.Table.from_pandas(wide(frame, served), schema, preserve_index=False))


@contextmanager
def csv(path: Path, served: Served, model_key: str) -> Iterator[Add]:
    """The table ``wide`` makes as text, labels separated by |.

    Args:
        path, served, model_key: as in ``parquet``.

    Yields:
        A function that adds a table with columns path, fault and scores.
    """
    if doubtful := [name for name in served.names if SEPARATOR in name]:
        what = "%s: %s separates labels, and classes have it in their names (%s): write .parquet to keep them apart"
        log.warning(what, path.name, SEPARATOR, some(doubtful))
    with open(path, "w", encoding="utf-8", newline="") as file:
        lines = cast("TextIO", CsvLines(file))  # pandas only writes

        def add(frame: pd.DataFrame) -> None:
            table = wide(frame, served)
            table.assign(labels=[SEPARATOR.join(row) for row in table["labels"]]).to_csv(
                lines, index=False, header=not file.tell(), lineterminator=CsvLines.END, float_format="%.9g"
            )

        yield add


@contextmanager
def megadetector(path: Path, served: Served, model_key: str) -> Iterator[Add]:
    """The batch format that camera-trap viewers read: one box over the whole frame with its labels, none for a blank
    frame. Source: lila.science/megadetector-output-format.

    Args:
        path: of the file.
        served: with classes, thresholds and calibration: confidences are calibrated probabilities.
        model_key: name of the model in the file's head.

    Yields:
        A function that adds a table with columns path, fault and scores.
    """
    head = {
        "info": {
            "format_version": "1.4",
            "detector": "none: one box over the whole image",
            "classifier": f"capnet {model_key}",
        },
        "detection_categories": {"1": "animal"},
        "classification_categories": {str(c): name for c, name in enumerate(served.names)},
    }
    with open(path, "w", encoding="utf-8") as file:
        file.write(json.dumps(head, indent=1, ensure_ascii=False).removesuffix("\n}") + ',\n "images": [')
        separator = "\n"

        def add(frame: pd.DataFrame) -> None:
            nonlocal separator
            for name, fault, row in zip(frame["path"], frame["fault"], frame["scores"], strict=True):
                file.write(f"{separator}  {json.dumps(_detections(name, fault, row, served), ensure_ascii=False)}")
                separator = ",\n"

        yield add
        file.write("\n ]\n}\n")


def _detections(name: str, fault: str, row: Any, served: Served) -> Mapping[str, Any]:
    if fault:
        return {"file": name, "detections": None, "failure": f"Failure image access: {fault}"}
    scores = np.asarray(row, dtype=np.float32)[None]
    probability, decided = served.probabilities(scores)[0], (scores >= served.class_thresholds)[0]
    labels = sorted(
        # significant digits: a rare class may have its label at a probability that four decimals show as 0
        ((str(c), float(f"{probability[c]:.4g}")) for c in np.flatnonzero(decided)),
        key=lambda item: -item[1],
    )
    if not labels:
        return {"file": name, "detections": []}
    box = {"category": "1", "conf": labels[0][1], "bbox": [0.0, 0.0, 1.0, 1.0]}
    return {"file": name, "detections": [box | {"classifications": [list(item) for item in labels]}]}


def are_scores(values: pa.Array | pa.ChunkedArray) -> bool:
    """Whether all of these numbers are there and lie in [0, 1]."""
    numbers = values.to_numpy(zero_copy_only=False) if isinstance(values, pa.Array) else values.to_numpy()
    return bool(((numbers >= 0) & (numbers <= 1)).all())  # no NaN does


def is_output(path: Path) -> bool:
    """Whether this program wrote the file, a table or MegaDetector's JSON, judging by how it begins."""
    if path.suffix.lower() == ".parquet":
        try:
            return bool(pq.read_schema(path).names[: len(FIRST)] == FIRST)
        except DAMAGED:
            return False
    with open(path, "rb") as file:
        start = file.read(4096)
    return start.startswith(",".join(FIRST).encode()) or b'"classifier": "capnet ' in start


FORMATS: Mapping[str, Writer] = {".parquet": parquet, ".csv": csv, ".json": megadetector}  # by an output's ending
