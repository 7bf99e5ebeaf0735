"""Edits of valid files: who changes bytes at random seldom gets past the parser of JSON or Parquet."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Iterator
from functools import cache
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

PARQUET = b"PAR1"
MARK = b"\0"  # before an edit: no file of text begins with it
_HOLE = "the value that is replaced"


def edited(valid: bytes, data: bytes) -> bytes | None:
    """A valid file with one value replaced, or left out.

    Args:
        valid: JSON, YAML, a Parquet table or safetensors.
        data: the mark, the number of the value as a byte, and its new content in JSON; nothing leaves it out.

    Returns:
        The bytes of the file; None where no such file can be written.
    """
    document = json.loads(_as_json(valid))
    slots = list(_slots(document))
    container, key = slots[data[1] % len(slots)] if len(data) > 1 else slots[0]
    if not data[2:]:
        del container[key]
        return _written(json.dumps(document).encode(), valid)
    container[key] = _HOLE
    return _written(json.dumps(document).encode().replace(json.dumps(_HOLE).encode(), data[2:]), valid)


def edits(valid: bytes) -> list[bytes]:
    """For each value of the file the edit that changes nothing, from which a fuzzer may go on."""
    slots = list(_slots(json.loads(_as_json(valid))))[:256]
    return [
        MARK + bytes([number]) + json.dumps(container[key]).encode() for number, (container, key) in enumerate(slots)
    ]


def _slots(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every value within a document, as what holds it and its key there."""
    items = list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ())
    for key, inner in items:
        yield value, key
        yield from _slots(inner)


@cache
def _as_json(valid: bytes) -> str:
    """What a valid file holds: of a table its columns, of tensors their header."""
    if valid.startswith(PARQUET):
        return json.dumps(_read(valid).to_pydict())
    if _is_safetensors(valid):
        return valid[8 : _end_of_header(valid)].decode()
    return json.dumps(yaml.safe_load(valid))


def _written(text: bytes, valid: bytes) -> bytes | None:
    """Such JSON as a file of the kind of ``valid``."""
    if valid.startswith(PARQUET):
        return _table(text, _read(valid).schema)
    if _is_safetensors(valid):
        return struct.pack("<Q", len(text)) + text + valid[_end_of_header(valid) :]
    return text


@cache
def _read(valid: bytes) -> pa.Table:
    return pq.read_table(pa.BufferReader(valid))


def _is_safetensors(valid: bytes) -> bool:
    return valid[8:9] == b"{"


def _end_of_header(valid: bytes) -> int:
    (length,) = struct.unpack("<Q", valid[:8])
    return 8 + int(length)


def _table(text: bytes, schema: pa.Schema) -> bytes | None:
    """Columns in JSON as a Parquet table; what does not fit the types that they had gets those of its values."""
    try:
        columns = json.loads(text)
        arrays = {name: _column(values, schema, name) for name, values in columns.items()}
        buffer = io.BytesIO()
        pq.write_table(pa.table(arrays).replace_schema_metadata(schema.metadata), buffer)
    except (ValueError, TypeError, AttributeError, RecursionError, OverflowError, pa.ArrowException):
        return None
    return buffer.getvalue()


def _column(values: Any, schema: pa.Schema, name: str) -> pa.Array:
    try:
        return pa.array(values, schema.field(name).type)
    except (KeyError, ValueError, TypeError, OverflowError, pa.ArrowException):
        return pa.array(values)
