"""Bodies that a stranger could send to a served model: each by a name, with its content type."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

from faults.hostile_images import made, whole

JSON = "application/json"


def records(*rows: object) -> bytes:
    return json.dumps({"dataframe_records": rows}).encode()


def base64_of(content: bytes) -> str:
    return base64.b64encode(content).decode()


def bodies() -> Iterator[tuple[str, str | None, bytes]]:
    good = {"image": base64_of(whole("JPEG"))}
    for name, content in made():
        yield name, JSON, records({"image": base64_of(content)})
    yield "no content type", None, records(good)
    yield "an unknown content type", "text/html", b"<p>"
    yield "another charset", "application/json; charset=utf-16", records(good)
    yield "no bytes", JSON, b""
    yield "half a body of JSON", JSON, records(good)[:-20]
    yield "no UTF-8", JSON, b'{"dataframe_records": [{"image": "\xff\xfe"}]}'
    yield "a list", JSON, b"[1, 2]"
    yield "a number", JSON, b"7"
    yield "null", JSON, b"null"
    yield "a text", JSON, b'"dataframe_records"'
    yield "an empty object", JSON, b"{}"
    yield "two inputs", JSON, b'{"dataframe_records": [], "instances": []}'
    nested = b"[" * 100_000 + b"]" * 100_000
    yield "100,000 levels", JSON, b'{"dataframe_records": ' + nested + b"}"
    yield "100,000 levels in an image", JSON, b'{"dataframe_records": [{"image": ' + nested + b"}]}"
    yield "a number of 5,000 digits", JSON, b'{"dataframe_records": [{"image": ' + b"9" * 5000 + b"}]}"
    yield "no number", JSON, b'{"dataframe_records": [{"image": NaN}]}'
    for name, rows in {
        "records that are none": 7,
        "records of text": "abc",
        "records of null": None,
        "records of lists": [[1, 2], [3]],
        "records of records": [{"image": {"image": [1]}}],
        "no records": [],
        "an object": {"image": "abc"},
        "1,000 images": [good] * 1000,
        "100,000 empty images": [{"image": ""}] * 100_000,
        "another column": [{"picture": "abc"}],
        "1,000 columns": [{f"column {number}": 1 for number in range(1000)}],
        "no base64": [{"image": "%%%"}],
        "5 MB that are no base64": [{"image": "%" * 5_000_000}],
        "20 MB of zeros": [{"image": base64_of(bytes(20_000_000))}],
        "a path": [{"image": "/etc/passwd"}],
        "a device": [{"image": "/dev/zero"}],
    }.items():
        yield name, JSON, json.dumps({"dataframe_records": rows}).encode()
    for key in ("dataframe_split", "instances", "inputs"):
        for value in (7, None, {"columns": 1, "data": 2}, [[[1]]]):
            yield f"{key}: {value}", JSON, json.dumps({key: value}).encode()
    yield "a split that does not fit", JSON, b'{"dataframe_split": {"columns": ["image"], "data": [["a", "b"], []]}}'
    for params in ({"a": 1}, 7, {"decided_only": "x"}):
        yield f"parameters {params}", JSON, json.dumps({"dataframe_records": [good], "params": params}).encode()
    yield "an odd table", "text/csv", b'image\n"abc'
    yield "a table of no UTF-8", "text/csv", b"image\n\xff\n"
    yield "an empty table", "text/csv", b""
    yield "no Parquet", "application/vnd.apache.parquet", b"PAR1 and no more"
    yield "messages", JSON, b'{"messages": [{"role": "user", "content": "hello"}]}'
    yield "messages of a number", JSON, b'{"messages": 7}'
    yield "a prompt", JSON, b'{"prompt": {"a": 1}}'
