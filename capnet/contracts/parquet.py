"""Parquet files read piece by piece: a page of seven kilobytes can hold one text that a million rows repeat."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import types

BATCH = 4096  # rows in memory at once
SECONDS = 20  # in which the values of a table's lists are counted
COUNT = """
import sys
import pyarrow.parquet as pq
metadata = pq.ParquetFile(sys.argv[1]).metadata
groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
print(sum(max(0, group.column(n).num_values - group.num_rows) for group in groups for n in range(group.num_columns)))
"""
# what pyarrow raises for damaged files: its own exceptions, and Python's for those of the C++ library
DAMAGED = (pa.ArrowException, OSError, RuntimeError, ArithmeticError, LookupError, UnicodeError)


def batches(source: Any, most: int, rows: int = BATCH, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The rows of a Parquet file, a part at a time; texts that repeat are measured before they are written out.

    Args:
        source: path, or file open for reading bytes.
        most: bytes of text that all parts together may have.
        rows: of a part.
        columns: that are read; None reads all.

    Raises:
        ValueError: they have more.
        DAMAGED: it is no Parquet file.
    """
    schema = pq.ParquetFile(source).schema
    stored = [schema.column(number) for number in range(len(schema))]
    texts = [column.path for column in stored if column.physical_type == "BYTE_ARRAY"]
    file = pq.ParquetFile(source, read_dictionary=texts)
    left = most
    for batch in file.iter_batches(batch_size=rows, columns=columns):
        left -= sum(map(_letters, batch.columns))
        if left < 0:
            raise ValueError(f"texts of more than {most:,} bytes: they could fill the memory")
        yield pa.Table.from_arrays([_written_out(column) for column in batch.columns], names=batch.schema.names)


def declared_size(file: pq.ParquetFile, path: Path) -> tuple[int, int]:
    """Bytes of a file's columns before compression, and values of its lists beyond one a row, as the file says.

    Args:
        file: the opened file.
        path: its path.

    Raises:
        ValueError: the description of its columns is damaged.
    """
    groups = range(file.metadata.num_row_groups)
    size = sum(file.metadata.row_group(number).total_byte_size for number in groups)
    return size, _further_values(path) if any(map(is_list, file.schema_arrow.types)) else 0


def _further_values(path: Path) -> int:
    """Values of a file's lists beyond one a row, counted by another process: where one bit of a column's description is
    wrong, pyarrow 25 ends the process that asks for it.
    """
    command = [sys.executable, "-I", "-c", COUNT, str(path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=SECONDS)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        raise ValueError("the description of its columns is damaged") from None
    return int(done.stdout)


def _letters(column: pa.Array) -> int:
    """Bytes of text that a column, or its lists, will take without the dictionary that holds each text once; 0 where it
    has none.
    """
    coded = pc.list_flatten(column) if is_list(column.type) else column
    if not types.is_dictionary(coded.type) or not _is_text(coded.type.value_type):
        return 0
    return pc.sum(pc.binary_length(coded.dictionary).take(coded.indices)).as_py() or 0


def _written_out(column: pa.Array) -> pa.Array:
    """A column of plain values, or lists of them, without dictionaries."""
    kind = column.type
    inner = kind.value_type if is_list(kind) else kind
    if not types.is_dictionary(inner):
        return column
    return column.cast(pa.list_(inner.value_type) if is_list(kind) else inner.value_type)


def is_list(kind: Any) -> bool:
    """Whether an Arrow type is a list."""
    return types.is_list(kind) or types.is_large_list(kind)


def _is_text(kind: Any) -> bool:
    return types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind) or types.is_large_binary(kind)
