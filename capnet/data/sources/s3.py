"""S3 through boto3: list a prefix, fetch objects that can be continued and are verified. The only module that imports
boto3.

Address, region and credentials come from where boto3 and DVC look for them: AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID,
AWS_PROFILE, ~/.aws, a web identity or an instance role.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from capnet.contracts import md5_file
from capnet.data.sources.remote import Entry, copies_folder, pause, split_uri, unsafe
from capnet.errors import CapnetError, DataError, Problem

CHUNK = 1 << 16  # bytes; what is lost when a connection breaks
ATTEMPTS = 5  # for one object, counted anew whenever more of it is here than ever
LONGEST_WAIT = 20.0  # seconds between two attempts
MOST_OBJECTS = 10_000_000  # of one list
EMPTY_PAGES = 1000  # of a list, beyond its objects: a server that lost its way sends them without end
PATIENCE = {"connect_timeout": 10, "read_timeout": 60}  # seconds
LARGEST = 1 << 63  # bytes of an object, and beyond what the index of copies can hold
LISTS = "is AWS_ENDPOINT_URL that of an S3 server (its ListObjectsV2), without a login page in between?"
PLAIN_MD5 = re.compile(r"[0-9a-f]{32}")  # the ETag of an object that was put in one piece
SAYS = {
    "env": "environment variables AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "shared-credentials-file": "the file ~/.aws/credentials",
    "config-file": "the file ~/.aws/config",
    "assume-role": "a role named in ~/.aws/config",
    "assume-role-with-web-identity": "a web identity token (a Kubernetes service account)",
    "sso": "a single sign-on session",
    "container-role": "the container's role",
    "iam-role": "the machine's role",
    "explicit": "the DVC remote's own settings",
}

REFUSALS = (  # error codes, what they say, what to do
    (("ExpiredToken",), "S3 refuses the credentials ({})", "renew key, secret and AWS_SESSION_TOKEN, or log in again"),
    (("RequestTimeTooSkewed",), "S3 refuses the time of this machine ({})", "set its clock, or that of the server"),
    (
        ("SignatureDoesNotMatch", "InvalidAccessKeyId", "InvalidToken", "401"),
        "S3 refuses the credentials ({})",
        "correct key, secret and AWS_SESSION_TOKEN (lasting keys have none), or choose another AWS_PROFILE",
    ),
    (
        ("AccessDenied", "403", "Forbidden", "AllAccessDisabled"),
        "S3 does not allow it ({})",
        "ask for s3:ListBucket and s3:GetObject on this bucket, or use other credentials",
    ),
    (("NoSuchBucket", "404"), "there is no such bucket", "correct the bucket's name; is this the right server?"),
    (("PreconditionFailed",), "the object was replaced while it was fetched", "run the same command again"),
)


@dataclass(frozen=True)
class S3Address:
    """How to reach a bucket beyond what the environment says; None leaves it to the environment."""

    endpoint: str | None = None
    profile: str | None = None
    region: str | None = None
    access_key: str | None = None
    secret_key: str | None = None
    session_token: str | None = None
    anonymous: bool = False


def connect(address: S3Address, connections: int, quick: bool = False) -> tuple[Any, str]:
    """An S3 client, and where its credentials were found; ``quick`` gives up after seconds.

    Raises DataError where there are no credentials, or no such profile.
    """
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    times = {"connect_timeout": 2, "read_timeout": 2} if quick else PATIENCE
    own_attempts = bool(os.environ.get("AWS_MAX_ATTEMPTS")) and not quick
    attempts = {} if own_attempts else {"total_max_attempts": 1 if quick else ATTEMPTS}
    config = Config(
        retries={"mode": "standard", **attempts},
        max_pool_connections=connections,
        signature_version=UNSIGNED if address.anonymous else None,
        **times,
    )
    try:
        session = boto3.session.Session(
            profile_name=address.profile,
            region_name=address.region,
            aws_access_key_id=address.access_key,
            aws_secret_access_key=address.secret_key,
            aws_session_token=address.session_token,
        )
        client = session.client("s3", endpoint_url=address.endpoint, config=config)
        credentials = None if address.anonymous else session.get_credentials()
    except (BotoCoreError, ValueError) as error:
        todo = "look at AWS_PROFILE, AWS_ENDPOINT_URL, other variables AWS_* and ~/.aws/config"
        raise DataError(f"S3 cannot be set up: {error}", "AWS settings", todo) from None
    if address.anonymous:
        return client, "none: data.anonymous is true"
    if credentials is None:
        todo = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; or data.anonymous for a public bucket"
        raise DataError("no credentials for S3 were found", "environment, ~/.aws, container and machine roles", todo)
    where = SAYS.get(str(credentials.method), str(credentials.method))
    return client, f"{where}, profile {session.profile_name}" if "file" in str(credentials.method) else where


@cache
def faults() -> tuple[type[Exception], ...]:
    """What botocore raises for an answer that it cannot use: it parses numbers, times and checksums as they come, and
    follows redirects.
    """
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError
    from urllib3.exceptions import HTTPError

    return BotoCoreError, ClientError, ResponseParserError, HTTPError, ValueError, RecursionError


def explain(error: Exception, what: str, client: Any, credentials: str) -> Problem:
    """What S3 answered, in three parts; ``what`` is the address that was asked for, ``credentials`` where they were
    found, as ``connect`` says.
    """
    where = f"{what} at {client.meta.endpoint_url}, credentials: {credentials}"
    answer: Mapping[str, Any] = getattr(error, "response", {}) or {}
    code = str(answer.get("Error", {}).get("Code", ""))
    for codes, says, todo in REFUSALS:
        if code in codes:
            return Problem(says.format(code), where, todo)
    if code in ("PermanentRedirect", "301", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"):
        region = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("x-amz-bucket-region", "its own")
        return Problem("the bucket is in another region", where, f"set AWS_REGION={region}")
    if code:
        return Problem(f"S3 answers {code}: {answer['Error'].get('Message', '')}", where, "see its log, or try again")
    from botocore.exceptions import BotoCoreError

    what = "S3 does not answer: " if isinstance(error, BotoCoreError) else "the answer of S3 cannot be read: "
    return Problem(what + " ".join(str(error).split()), where, "is the server running, and AWS_ENDPOINT_URL right?")


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
        its size. Raises DataError where it cannot be had.
        """
        failed, most, last = 0, 0, ""
        while failed < ATTEMPTS:
            have = target.stat().st_size if target.exists() else 0
            plain = True
            if have < entry.size or not target.exists():
                plain, last = self._append(path, entry, target, have)
            size = target.stat().st_size
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


@dataclass(frozen=True)
class Answer:
    """What a bucket said: the server's address, where credentials were found, is an object there, and what is wrong."""

    endpoint: str = ""
    credentials: str = ""
    has_object: bool = False
    problem: Problem | None = None


def probe(address: S3Address, uri: str, path: str = "") -> Answer:
    """Ask for one name below ``uri``, and for the object ``path`` below it; an answer takes seconds at most."""
    try:
        bucket, prefix = split_uri(uri)
        client, credentials = connect(address, 1, quick=True)
    except CapnetError as error:
        return Answer(problem=error.problems[0])
    try:
        listing = client.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/{path}" if prefix else path, MaxKeys=1)
    except faults() as error:
        return Answer(client.meta.endpoint_url, credentials, False, explain(error, uri, client, credentials))
    return Answer(client.meta.endpoint_url, credentials, listing.get("KeyCount", len(listing.get("Contents", []))) > 0)
