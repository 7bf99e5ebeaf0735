"""Parquet files read piece by piece: a page of seven kilobytes can hold one text that a million rows repeat."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import types

BATCH = 4096  # rows in memory at once


def batches(source: Any, most: int, rows: int = BATCH) -> Iterator[pa.Table]:
    """The rows of a Parquet file, a part at a time; texts that repeat are measured before they are written out.

    Args:
        source: path, or file open for reading bytes.
        most: bytes of text that all parts together may have.
        rows: of a part.

    Raises:
        ValueError: they have more.
        pa.ArrowException: it is no Parquet file.
    """
    schema = pq.ParquetFile(source).schema
    columns = [schema.column(number) for number in range(len(schema))]
    texts = [column.path for column in columns if column.physical_type == "BYTE_ARRAY"]
    file = pq.ParquetFile(source, read_dictionary=texts)
    left = most
    for batch in file.iter_batches(batch_size=rows):
        left -= sum(map(_letters, batch.columns))
        if left < 0:
            raise ValueError(f"texts of more than {most:,} bytes: they could fill the memory")
        yield pa.Table.from_arrays([_written_out(column) for column in batch.columns], names=batch.schema.names)


def _letters(column: pa.Array) -> int:
    """Bytes of text in a column, or in its lists, that a dictionary holds once."""
    coded = pc.list_flatten(column) if _is_list(column.type) else column
    if not types.is_dictionary(coded.type) or not _is_text(coded.type.value_type):
        return 0
    return pc.sum(pc.binary_length(coded.dictionary).take(coded.indices)).as_py() or 0


def _written_out(column: pa.Array) -> pa.Array:
    """A column of plain values, or lists of them, without dictionaries."""
    kind = column.type
    inner = kind.value_type if _is_list(kind) else kind
    if not types.is_dictionary(inner):
        return column
    return column.cast(pa.list_(inner.value_type) if _is_list(kind) else inner.value_type)


def _is_list(kind: Any) -> bool:
    return types.is_list(kind) or types.is_large_list(kind)


def _is_text(kind: Any) -> bool:
    return types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind) or types.is_large_binary(kind)
