"""Contents that a stranger could put in the place of any file: each by a name, small on the disk."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

DIGITS = "9" * 5000
HUGE = "1" + "0" * 30


class Executed:
    """What a reader that unpickles would run."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.system, ("touch EXECUTED",)


def parquet(**columns: Any) -> bytes:
    buffer = io.BytesIO()
    pd.DataFrame(columns).to_parquet(buffer, index=False)
    return buffer.getvalue()


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        packed.writestr("../../out.txt", "x")
    return buffer.getvalue()


def deep(opening: str, inner: str, closing: str, depth: int = 100_000) -> bytes:
    return f'{{"info": {opening * depth}{inner}{closing * depth}, "images": []}}'.encode()


XML = '<?xml version="1.0" encoding="{}"?><annotation><object><name>cat</name></object></annotation>'
LAUGHS = "".join(
    f'<!ENTITY l{n} "{"&l" + str(n - 1) + ";" if n else "ha"}{f"&l{n - 1};" * 9 if n else ""}">' for n in range(12)
)

TEXTS: dict[str, bytes] = {
    "nothing": b"",
    "one zero byte": b"\0",
    "a thousand zero bytes": b"\0" * 1000,
    "a byte order mark": b"\xef\xbb\xbf",
    "white space": b" \t\r\n" * 50,
    "UTF-16": "path,labels\na.jpg,cat\n".encode("utf-16"),
    "Latin-1": "path,labels\nf\xfcchse.jpg,F\xfcchse\n".encode("latin-1"),
    "surrogates": b"path,labels\n\xed\xa0\x80.jpg,cat\n",
    "an overlong slash": b"path,labels\n..\xc0\xafetc,cat\n",
    "random bytes": bytes((n * 7919 + n * n) % 256 for n in range(5000)),
    "a pickle": pickle.dumps(Executed()),
    "an archive": zipped(),
    "a page": b"<!DOCTYPE html><html><script>alert(1)</script></html>",
    "a script": b"#!/bin/sh\ntouch EXECUTED\n",
    "a line of 20 MB": b"a" * 20_000_000,
    "a quote that never ends": b'path,labels\n"a.jpg,cat\n' + b"b.jpg,cat\n" * 1000,
    "a hundred thousand columns": b",".join(b"c%d" % n for n in range(100_000)),
    "NaN": b"NaN",
    "an infinity": b"1e999",
    "5,000 digits": DIGITS.encode(),
    "5,000 digits in a list": f'{{"images": [{{"id": {DIGITS}, "file_name": "a.jpg"}}], "categories": []}}'.encode(),
    "deep lists": deep("[", "", "]"),
    "deep objects": deep('{"a":', "1", "}"),
    "lists that never end": b'{"images": ' + b"[" * 200_000,
    "objects that never end": b'{"categories": ' + b'{"a":' * 200_000,
    "a string that never ends": b'{"images": "' + b"a" * 20_000_000,
    "a long key": b'{"' + b"a" * 10_000_000 + b'": 1}',
    "an equal key, often": b'{"images": [], ' + b'"images": [], ' * 50_000 + b'"images": []}',
    "no objects": b'{"images": [1, "x", null], "annotations": [[]], "categories": [true]}',
    "XML of an unknown encoding": XML.format("x-nobody").encode(),
    "XML that says UTF-16": XML.format("UTF-16").encode(),
    "XML of several bytes a letter": XML.format("shift_jis").encode(),
    "deep XML": b"<a>" * 100_000 + b"</a>" * 100_000,
    "XML that laughs": f"<!DOCTYPE x [{LAUGHS}]><annotation>&l11;</annotation>".encode(),
    "XML that asks for a file": b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><annotation><object><name>&e;'
    b"</name></object></annotation>",
    "XML with many attributes": b"<annotation " + b" ".join(b'a%d="1"' % n for n in range(100_000)) + b"/>",
    "YAML that laughs": b"a0: &a0 [x, x]\n"
    + b"".join(b"a%d: &a%d [*a%d, *a%d]\n" % (n, n, n - 1, n - 1) for n in range(1, 40)),
    "a truncated table": parquet(path=["a.jpg"], labels=["cat"])[:-30],
    "a table without columns": parquet(),
    "a table without pages": parquet(path=["a.jpg"], labels=["cat"])[:4] + b"\0" * 40 + b"PAR1",
}


def places(root: Path, name: str) -> Iterator[tuple[str, Callable[[], None]]]:
    """What can stand in the place of a file other than bytes: (what, how it is made)."""
    path = root / name

    def link(target: str) -> Callable[[], None]:
        return lambda: path.symlink_to(target)

    def sparse() -> None:
        with open(path, "wb") as file:
            file.truncate(1 << 40)

    yield "a pipe", lambda: os.mkfifo(path)
    yield "a folder", path.mkdir
    yield "a link to a device", link("/dev/zero")
    yield "a link to itself", link(path.name)
    yield "a link to nothing", link("gone")
    yield "a link out", link("/etc/passwd")
    yield "a file of a terabyte", sparse


def gzip_bomb() -> bytes:
    """A gigabyte of one line in a megabyte."""
    return gzip.compress(bytes(100_000_000), 1) * 10


VALUES: dict[str, str] = {  # of any field, as JSON
    "null": "null",
    "true": "true",
    "minus one": "-1",
    "2^31 - 1": "2147483647",
    "2^31": "2147483648",
    "2^63": "9223372036854775808",
    "10^30": HUGE,
    "5,000 digits": DIGITS,
    "4,000 digits": "9" * 4000,
    "an infinity": "1e999",
    "half": "0.5",
    "text": '"x"',
    "no text": '""',
    "a zero byte": '"a\\u0000b"',
    "control characters": '"a\\u0007\\u001b[31mb"',
    "text that is turned round": '"a\\u202eb"',
    "half a letter": '"\\ud800"',
    "a way out": '"../../etc/passwd"',
    "an absolute path": '"/etc/passwd"',
    "10,000 letters": '"' + "a" * 10_000 + '"',
    "HTML": '"<script>alert(1)</script>"',
    "a list": "[1, 2]",
    "a deep list": "[" * 300 + "]" * 300,
    "an object": '{"a": 1}',
}
FIELDS = {
    "images": {"id": "1", "file_name": '"a.jpg"', "width": "10", "height": "10", "location": '"l"', "seq_id": '"s"'},
    "annotations": {
        "id": "1",
        "image_id": "1",
        "category_id": "3",
        "bbox": "[1, 1, 5, 5]",
        "area": "9",
        "iscrowd": "0",
    },
    "categories": {"id": "3", "name": '"cat"'},
}


def coco_files() -> Iterator[tuple[str, bytes]]:
    """A valid file with one field replaced, for every field and value, and with every part or field missing."""
    for part, fields in FIELDS.items():
        for field in fields:
            for name, value in VALUES.items():
                yield f"{part}: {field} is {name}", coco_file({part: {field: value}})
            yield f"{part}: no {field}", coco_file({part: {field: ""}})
        yield f"no {part}", coco_file({}, without=part)
    for twice in (["Caf\u00e9", "Cafe\u0301"], ["\u212b", "\u00c5"], ["fox", "fo\u200bx"], ["red fox", "red\u00a0fox"]):
        two = ", ".join(json.dumps({"id": n, "name": name}) for n, name in enumerate(twice))
        yield (
            f"categories that look alike, {twice[0]!a}",
            coco_file({}).replace(b'{"id": 3, "name": "cat"}', b'{"id": 3, "name": "cat"}, ' + two.encode()),
        )


def coco_file(changes: dict[str, dict[str, str]], without: str = "") -> bytes:
    parts = []
    for part, fields in FIELDS.items():
        if part != without:
            values = {**fields, **changes.get(part, {})}
            body = ", ".join(f'"{name}": {value}' for name, value in values.items() if value)
            parts.append(f'"{part}": [{{{body}}}]')
    return f"{{{', '.join(parts)}}}".encode()


def csv_files() -> Iterator[tuple[str, bytes]]:
    """A valid table with one cell replaced, for every column and value."""
    columns = {"path": "a.jpg", "labels": "cat", "unknown": "", "image_id": "1", "split": "train", "group": "g"}
    columns |= {"width": "10", "height": "10", "sha256": "ab", "sequence": "1"}
    values = [
        "5" * 5000,
        "inf",
        "-inf",
        "nan",
        "1e400",
        "\x07\x1b[31m",
        "a\u0301|\u00e1",
        "../x",
        "/etc/passwd",
        "a\\b",
    ]
    values += [
        "x" * 200_000,
        "=cmd|' /C calc'!A0",
        "<script>",
        "\u202egpj.exe",
        "\ufeff",
        "C:\\x",
        "http://x/y",
        "0",
        "-0",
        "00",
    ]
    for column in columns:
        for number, value in enumerate(values):
            cells = {**columns, column: value}
            text = ",".join(columns) + "\n" + ",".join('"' + cell.replace('"', '""') + '"' for cell in cells.values())
            yield f"{column}: value {number}", (text + "\n").encode()


def parquet_files() -> Iterator[tuple[str, bytes]]:
    """Tables whose bytes are damaged one at a time, and cells that no text is."""
    whole = parquet(path=[f"{n}.jpg" for n in range(50)], labels=["cat|dog"] * 50, width=list(range(1, 51)))
    for step in range(0, len(whole), max(1, len(whole) // 80)):
        yield f"byte {step} flipped", whole[:step] + bytes([whole[step] ^ 0xFF]) + whole[step + 1 :]
    yield "infinities", parquet(path=["a.jpg"], labels=["cat"], width=[float("inf")], height=[float("-inf")])
    yield "infinities for labels", parquet(path=["a.jpg"], labels=[float("inf")])
    yield "bytes for text", parquet(path=[b"\xff\xfe.jpg"], labels=["cat"])
    yield "no UTF-8", whole.replace(b"1.jpg", b"\xff\xff\xff\xff\xff")


def parquet_bits() -> Iterator[tuple[str, bytes]]:
    """Tables of which one bit is flipped in what the footer says of a column: pyarrow 25 ends the process that asks for
    such a column.
    """
    for kind, labels in (("texts", ["cat"]), ("lists", [["cat"]])):
        small = parquet(path=["a.jpg"], labels=labels)
        for at in range(small.index(b"\x15\x04\x19", len(small) // 12), len(small) // 4):
            for bit in (2, 5):
                flipped = small[:at] + bytes([small[at] ^ 1 << bit]) + small[at + 1 :]
                yield f"{kind}: bit {bit} of byte {at} flipped", flipped
