"""Edits of valid files: who changes bytes at random seldom gets past the parser of JSON or Parquet."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

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
    document, write = _opened(valid)
    slots = list(_slots(document))
    container, key = slots[data[1] % len(slots)] if len(data) > 1 else slots[0]
    if not data[2:]:
        del container[key]
        return write(json.dumps(document).encode())
    container[key] = _HOLE
    return write(json.dumps(document).encode().replace(json.dumps(_HOLE).encode(), data[2:]))


def edits(valid: bytes) -> list[bytes]:
    """For each value of the file the edit that changes nothing, from which a fuzzer may go on."""
    document, _ = _opened(valid)
    slots = list(_slots(document))[:256]
    return [
        MARK + bytes([number]) + json.dumps(container[key]).encode() for number, (container, key) in enumerate(slots)
    ]


def _slots(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every value within a document, as what holds it and its key there."""
    items = list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ())
    for key, inner in items:
        yield value, key
        yield from _slots(inner)


def _opened(valid: bytes) -> tuple[Any, Callable[[bytes], bytes | None]]:
    """What a valid file holds, as JSON has it, and how such JSON becomes a file again."""
    if valid.startswith(b"PAR1"):
        table = pq.read_table(pa.BufferReader(valid))
        return table.to_pydict(), lambda text: _table(text, table.schema)
    if valid[8:9] == b"{":
        (length,) = struct.unpack("<Q", valid[:8])
        rest = valid[8 + length :]
        return json.loads(valid[8 : 8 + length]), lambda text: struct.pack("<Q", len(text)) + text + rest
    return yaml.safe_load(valid), lambda text: text


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
