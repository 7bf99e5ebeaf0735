"""manifest.parquet, split.parquet and predictions.parquet."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capnet.contracts.files import AGAIN, SCHEMA, check_exists, check_schema, reading, replacing
from capnet.contracts.image_rows import check_rows
from capnet.errors import ContractError
from capnet.machine_faults import refuse_unread

if TYPE_CHECKING:
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
NEVER_NULL = ("image_id", "path", "labels", "unknown", "split", "variant", "scores")
PREDICTION_COLUMNS = ("image_id", "split", "slice", "variant", "scores")
SEEN_COLUMNS = ("sha256", "group")
MOST_UNPACKED = 512 * 2**20  # bytes of memory for cells, whatever the file's size
MOST_TIMES = 100  # as much memory as the file has bytes; tables of images that differ take 30 times
CELL = 20  # bytes of memory for a cell without what is in it: pandas makes one object of each
ROWS_AT_ONCE = 65_536  # rows that are read at a time
SCORED_COLUMNS = (*SEEN_COLUMNS, "labels", "unknown", "scores")


def _schema(names: Sequence[str]) -> Any:
    """The Arrow schema of columns, by their names."""
    import pyarrow as pa

    ids = pa.list_(pa.int16())
    kinds = {"labels": ids, "unknown": ids, "width": pa.int32(), "height": pa.int32(), "scores": pa.list_(pa.float32())}
    return pa.schema([(name, kinds.get(name, pa.string())) for name in names])


def _write_table(path: Path, frame: pd.DataFrame, columns: Sequence[str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema([name for name in columns if name in frame or name not in OPTIONAL_COLUMNS])
    table = pa.Table.from_pandas(frame[schema.names], schema=schema, preserve_index=False).replace_schema_metadata(
        {"capnet_schema": str(SCHEMA)}
    )
    with replacing(path) as temporary:
        pq.write_table(table, temporary)


def _read_table(
    path: Path, columns: Sequence[str], filled: Sequence[str] = NEVER_NULL, versioned: bool = True
) -> pd.DataFrame:
    """Read a table with these columns. Those in ``filled`` must have no empty cell, and a table that is ``versioned``
    must be of this schema version.
    """
    import pyarrow.parquet as pq

    from capnet.contracts.parquet import DAMAGED

    check_exists(path)
    try:
        schema = pq.read_schema(path)
    except DAMAGED as error:
        refuse_unread(error, path)
        raise ContractError(f"not a Parquet file: {error}", str(path), AGAIN) from None
    with reading(path):
        if versioned:
            check_schema({"schema": (schema.metadata or {}).get(b"capnet_schema", b"0").decode()}, path)
        missing = [name for name in columns if name not in schema.names]
        if missing:
            raise ContractError(f"columns are missing: {', '.join(missing)}", str(path), AGAIN)
        expected = _schema([*columns, *(name for name in OPTIONAL_COLUMNS if name in schema.names)])
        for field in expected:
            kind = schema.field(field.name).type
            if kind != field.type:
                raise ValueError(f"column {field.name} holds {kind}, not {field.type}")
        try:
            table = _bounded(path, expected)
        except DAMAGED as error:
            refuse_unread(error, path)
            raise ContractError(f"not a Parquet file: {error}", str(path), AGAIN) from None
        for field in expected:
            _check_column(table[field.name], field, filled)
        frame = table.to_pandas()
        if versioned and "path" in columns:
            check_rows(frame)
        return frame


def _bounded(path: Path, expected: Any) -> Any:
    """The expected columns of a Parquet file; raises ValueError where they would fill the memory."""
    import pyarrow as pa

    from capnet.contracts.parquet import batches

    most = max(MOST_UNPACKED, MOST_TIMES * path.stat().st_size)
    left, parts = most, []
    for batch in batches(path, most, ROWS_AT_ONCE, expected.names):
        part = batch.select(expected.names)
        left -= part.nbytes + CELL * len(part) * len(expected)
        if left < 0:
            raise ValueError(f"cells of more than {most:,} bytes: they could fill the memory")
        parts.append(part.cast(expected))
    return pa.concat_tables(parts) if parts else expected.empty_table()


def _check_column(column: Any, field: Any, filled: Sequence[str]) -> None:
    """Raises ValueError where a column is not what is written there."""
    import pyarrow.compute as pc

    if column.null_count and field.name in filled:
        raise ValueError(f"column {field.name} has {column.null_count} empty cells")
    strange = sorted(set(column.unique().to_pylist()) - set(SPLITS)) if field.name == "split" else []
    if strange:
        raise ValueError(f"split is {strange[0]!r}, and must be one of {', '.join(SPLITS)}")
    if field.name in ("labels", "unknown"):
        indices = pc.list_flatten(column)
        lowest = pc.min(indices).as_py()
        if indices.null_count:
            raise ValueError(f"column {field.name} has an empty class index")
        if lowest is not None and lowest < 0:
            raise ValueError(f"column {field.name} has the class index {lowest}")
    if field.name == "scores":
        values, lengths = pc.list_flatten(column), pc.list_value_length(column)
        if values.null_count or pc.all(pc.is_finite(values)).as_py() not in (True, None):
            raise ValueError("column scores has values that are not finite")
        if len(lengths.unique()) > 1:
            raise ValueError(f"rows of column scores have {lengths.unique().to_pylist()[:5]} values")


def write_manifest(path: Path, frame: pd.DataFrame) -> None:
    """manifest.parquet: one row an image, with MANIFEST_COLUMNS and those of OPTIONAL_COLUMNS that ``frame`` has.
    Group, slice and given_split may be null; so may width, height and sha256 that neither ingest nor the format
    measured.
    """
    _write_table(path, frame, (*MANIFEST_COLUMNS, *OPTIONAL_COLUMNS))


def read_manifest(path: Path) -> pd.DataFrame:
    """What ``write_manifest`` wrote; raises ContractError where it is missing or damaged."""
    return _read_table(path, MANIFEST_COLUMNS)


def write_split(path: Path, frame: pd.DataFrame) -> None:
    """split.parquet: manifest columns and ``split`` (train, val, test), the only table read from there on."""
    _write_table(path, frame, (*MANIFEST_COLUMNS, *OPTIONAL_COLUMNS, "split"))


def read_split(path: Path) -> pd.DataFrame:
    """What ``write_split`` wrote; raises ContractError where it is missing or damaged."""
    return _read_table(path, (*MANIFEST_COLUMNS, "split"))


def write_predictions(path: Path, frame: pd.DataFrame) -> None:
    """predictions.parquet: image_id, split, slice, variant, scores (list<float32>, in class order, in [0, 1])."""
    _write_table(path, frame, PREDICTION_COLUMNS)


def read_predictions(path: Path) -> pd.DataFrame:
    """What ``write_predictions`` wrote; raises ContractError where it is missing or damaged."""
    return _read_table(path, PREDICTION_COLUMNS)


def write_gate_rows(path: Path, frame: pd.DataFrame, columns: Sequence[str]) -> None:
    """A table of a promotion: SCORED_COLUMNS or SEEN_COLUMNS, one row an image."""
    _write_table(path, frame, columns)


def read_gate_rows(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """What ``write_gate_rows`` wrote, without an empty cell; the schema version is in the file beside it."""
    return _read_table(path, columns, filled=columns, versioned=False)


def fitted_rows_hash(table: pd.DataFrame) -> str:
    """SHA-256 of which images of split.parquet a model is trained on and which it is chosen on, in any order. An image
    is known by name and bytes: another one may get its name.
    """
    rows = table.loc[table["split"] != "test", ["split", "image_id", "sha256"]].fillna("")
    return hashlib.sha256("\n".join(sorted(map(" ".join, rows.to_numpy()))).encode()).hexdigest()
