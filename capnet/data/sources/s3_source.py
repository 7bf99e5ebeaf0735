"""A data folder in S3: list a prefix, fetch objects that can be continued and are verified."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from capnet.contracts import md5_file
from capnet.data.sources.remote import Entry, copies_folder, pause, split_uri, unsafe
from capnet.data.sources.s3 import ATTEMPTS, S3Address, connect, explain, faults
from capnet.errors import DataError, Problem

CHUNK = 1 << 16  # bytes; what is lost when a connection breaks
LONGEST_WAIT = 20.0  # seconds between two attempts
MOST_OBJECTS = 10_000_000  # of one list
EMPTY_PAGES = 1000  # of a list, beyond its objects: a server that lost its way sends them without end
LARGEST = 1 << 63  # bytes of an object, and beyond what the index of copies can hold
LISTS = "is AWS_ENDPOINT_URL that of an S3 server (its ListObjectsV2), without a login page in between?"
PLAIN_MD5 = re.compile(r"[0-9a-f]{32}")  # the ETag of an object that was put in one piece


@dataclass(frozen=True)
class S3Source:
    """The objects below s3://BUCKET/PREFIX; ``folder`` is where their copies are below the cache."""

    root: str
    connections: int
    anonymous: bool = False

    @property
    def name(self) -> str:
        return self.root

    @property
    def folder(self) -> PurePosixPath:
        address = "/".join(split_uri(self.root))
        return copies_folder("s3", address, address)

    @cached_property
    def _client(self) -> tuple[Any, str]:
        return connect(S3Address(anonymous=self.anonymous), self.connections)

    def entries(self) -> dict[str, Entry]:
        """Every object below the prefix. Raises DataError where it cannot be listed, is empty, or has odd names."""
        client, credentials = self._client
        bucket, prefix = split_uri(self.root)
        start, where = f"{prefix}/" if prefix else "", f"{self.root} at {client.meta.endpoint_url}"
        entries: dict[str, Entry] = {}
        problems: list[Problem] = []
        try:
            pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=start)
            for number, page in enumerate(pages):
                for item in _rows(page, where):
                    path = item["Key"][len(start) :]
                    if not path or path.endswith("/"):
                        continue  # a folder's marker
                    if fault := unsafe(path):
                        what = f"object name {item['Key']!r} cannot be used: {fault}"
                        problems.append(Problem(what, self.root, "rename or remove the object"))
                    if path in entries:
                        raise DataError(f"the list of objects has {item['Key']!r} twice", where, LISTS)
                    entries[path] = Entry(item["Size"], item["ETag"].strip('"'))
                if len(entries) > MOST_OBJECTS or number > len(entries) + EMPTY_PAGES:
                    what = f"the list of objects does not end: {len(entries):,} objects in {number + 1:,} answers"
                    raise DataError(what, where, f"give a prefix with fewer objects; {LISTS}")
        except faults() as error:
            raise DataError(problems=[explain(error, self.root, client, credentials)]) from None
        if problems:
            raise DataError(problems=problems)
        if not entries:
            todo = "correct this address, which is a prefix and no single object, or upload the files to it"
            raise DataError("nothing is stored there", where, todo)
        return entries

    def fetch(self, path: str, entry: Entry, target: Path) -> None:
        """Write one object to ``target``, going on after what is there; verified by md5 where the ETag is one, else by
        its size, and by a checksum of the whole object that S3 sends with it. Raises DataError where it cannot be had.
        """
        failed, most, last = 0, 0, ""
        while failed < ATTEMPTS:
            have = target.stat().st_size if target.exists() else 0
            plain = True
            if have < entry.size or not target.exists():
                plain, last = self._append(path, entry, target, have)
            size = target.stat().st_size if target.exists() else 0
            if size >= entry.size:
                last = _fault(target, entry, plain)
                if not last:
                    return
                target.unlink()  # what is wrong is not known, so nothing of it is kept
            failed, most = 1 if size > most else failed + 1, max(most, size)
            pause(failed, LONGEST_WAIT)
        what = f"the object could not be fetched in {ATTEMPTS} attempts: {last}"
        where = f"{self.root}/{path} at {self._client[0].meta.endpoint_url}"
        raise DataError(what, where, "check the connection and the server, then run it again")

    def close(self) -> None:
        if "_client" in self.__dict__:
            self._client[0].close()

    def _append(self, path: str, entry: Entry, target: Path, have: int) -> tuple[bool, str]:
        """Add the missing bytes; returns whether the ETag can be the content's md5, and why bytes may still be missing.

        Raises DataError where S3 refuses. botocore repeats a request that gets no answer, but no answer that breaks
        off.
        """
        if not entry.size:
            target.touch()
            return True, ""
        from botocore.exceptions import FlexibleChecksumError

        client, credentials = self._client
        bucket, prefix = split_uri(self.root)
        key, more = f"{prefix}/{path}" if prefix else path, {"Range": f"bytes={have}-"} if have else {}
        try:
            answer = client.get_object(Bucket=bucket, Key=key, IfMatch=f'"{entry.version}"', **more)
        except faults() as error:
            raise DataError(problems=[explain(error, f"{self.root}/{path}", client, credentials)]) from None
        plain = not str(answer.get("ServerSideEncryption", "")).startswith("aws:kms")
        try:
            mode = "ab" if have and "ContentRange" in answer else "wb"
            with open(target, mode) as file, closing(answer["Body"]) as body:
                for chunk in body.iter_chunks(CHUNK):
                    file.write(chunk)
                    if file.tell() > entry.size:
                        return plain, ""  # another object, perhaps without an end
        except faults() as error:
            if isinstance(error, FlexibleChecksumError):  # raised behind the last byte: all are there, some are wrong
                target.unlink()
            return plain, " ".join(str(error).split())
        return plain, "the answer was too short"


def _rows(page: Mapping[str, Any], where: str) -> Sequence[Mapping[str, Any]]:
    rows: Sequence[Mapping[str, Any]] = page.get("Contents", [])
    if "IsTruncated" not in page or not all(
        {"Key", "Size", "ETag"} <= row.keys() and 0 <= row["Size"] < LARGEST for row in rows
    ):
        raise DataError("the answer is no list of objects", where, LISTS)
    if page["IsTruncated"] and not page.get("NextContinuationToken"):
        raise DataError("the list of objects breaks off: it has more, and does not say where", where, LISTS)
    return rows


def _fault(target: Path, entry: Entry, plain: bool) -> str:
    size = target.stat().st_size
    if size != entry.size:
        return f"{size} bytes arrived, not {entry.size}"
    if plain and PLAIN_MD5.fullmatch(entry.version):
        content = md5_file(target)
        if content != entry.version:
            return f"its md5 is {content}, not {entry.version}"
    return ""
