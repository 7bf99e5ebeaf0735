"""manifest.parquet, split.parquet and predictions.parquet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capnet.contracts.files import AGAIN, SCHEMA, check_exists, check_schema, replacing
from capnet.errors import ContractError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

SPLITS = ("train", "val", "test")
VARIANTS = ("capnet", "single_view", "zero_shot", "zero_shot_single_view", "linear_probe")
MANIFEST_COLUMNS = (
    "image_id",
    "path",
    "labels",
    "unknown",
    "width",
    "height",
    "sha256",
    "group",
    "slice",
    "given_split",
)
OPTIONAL_COLUMNS = ("sequence",)  # frames of one burst, in formats that have them
PREDICTION_COLUMNS = ("image_id", "split", "slice", "variant", "scores")


def _manifest_schema(frame: pd.DataFrame, with_split: bool) -> Any:
    import pyarrow as pa

    text, ids = pa.string(), pa.list_(pa.int16())
    kinds = {"labels": ids, "unknown": ids, "width": pa.int32(), "height": pa.int32()}
    optional = [name for name in OPTIONAL_COLUMNS if name in frame.columns]
    names = [*MANIFEST_COLUMNS, *optional, *(["split"] if with_split else [])]
    return pa.schema([(name, kinds.get(name, text)) for name in names])


def _write_table(path: Path, frame: pd.DataFrame, schema: Any) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pandas(frame[schema.names], schema=schema, preserve_index=False).replace_schema_metadata(
        {"capnet_schema": str(SCHEMA)}
    )
    with replacing(path) as temporary:
        pq.write_table(table, temporary)


def _read_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    import pyarrow as pa
    import pyarrow.parquet as pq

    check_exists(path)
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise ContractError(f"not a Parquet file: {error}", str(path), AGAIN) from None
    check_schema({"schema": (table.schema.metadata or {}).get(b"capnet_schema", b"0").decode()}, path)
    missing = [name for name in columns if name not in table.column_names]
    if missing:
        raise ContractError(f"columns are missing: {', '.join(missing)}", str(path), AGAIN)
    frame: pd.DataFrame = table.to_pandas()
    return frame


def write_manifest(path: Path, frame: pd.DataFrame) -> None:
    """manifest.parquet: one row an image (MANIFEST_COLUMNS; group, slice and given_split may be null, and what was not
    measured; OPTIONAL_COLUMNS).
    """
    _write_table(path, frame, _manifest_schema(frame, with_split=False))


def read_manifest(path: Path) -> pd.DataFrame:
    return _read_table(path, MANIFEST_COLUMNS)


def write_split(path: Path, frame: pd.DataFrame) -> None:
    """split.parquet: manifest columns and ``split`` (train, val, test), the only table read from there on."""
    _write_table(path, frame, _manifest_schema(frame, with_split=True))


def read_split(path: Path) -> pd.DataFrame:
    return _read_table(path, (*MANIFEST_COLUMNS, "split"))


def write_predictions(path: Path, frame: pd.DataFrame) -> None:
    """predictions.parquet: image_id, split, slice, variant, scores (list<float32>, in class order, in [0, 1])."""
    import pyarrow as pa

    kinds = {"scores": pa.list_(pa.float32())}
    _write_table(path, frame, pa.schema([(name, kinds.get(name, pa.string())) for name in PREDICTION_COLUMNS]))


def read_predictions(path: Path) -> pd.DataFrame:
    return _read_table(path, PREDICTION_COLUMNS)


def label_matrix(lists: Sequence[Sequence[int]] | pd.Series, n_classes: int) -> np.ndarray:
    """bool [row, class] from lists of class indices (column ``labels`` or ``unknown``)."""
    import numpy as np

    matrix = np.zeros((len(lists), n_classes), dtype=bool)
    lengths = [len(item) for item in lists]
    if sum(lengths):
        rows = np.repeat(np.arange(len(lists)), lengths)
        matrix[rows, np.concatenate([np.asarray(item, dtype=np.int64) for item in lists])] = True
    return matrix
