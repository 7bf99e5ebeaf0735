"""A server that speaks S3 and answers wrongly: a refusal in time, and no part of a list taken for all of it."""

from __future__ import annotations

import base64
import itertools
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faults.bad_servers import Answer, BadServer, md5, objects, serving

from capnet.data.sources import s3_source
from capnet.data.sources.cache import Cache
from capnet.data.sources.remote import Entry
from capnet.errors import DataError

FILES = {"set/labels.csv": b"path,labels\n", "set/a.jpg": bytes(100_000)}
TIME = "<LastModified>2026-01-01T00:00:00Z</LastModified>"
ROW = f'<Contents><Key>set/{{}}</Key>{TIME}<ETag>"x"</ETag><Size>5</Size></Contents>'
END = "<IsTruncated>false</IsTruncated>"
MORE = "<IsTruncated>true</IsTruncated><NextContinuationToken>{}</NextContinuationToken>"
EVERY_NUMBER = itertools.count()
LISTS = {  # what the list says, answer for answer, and the refusal
    "no size": (lambda: END + ROW.format("a.csv").replace("5<", "many<"), "cannot be read: invalid literal"),
    "a size below 0": (lambda: END + ROW.format("a.csv").replace("5<", "-5<"), "no list of objects"),
    "a size beyond all": (lambda: END + ROW.format("a.csv").replace("5<", f"{1 << 63}<"), "no list of objects"),
    "no time": (lambda: END + ROW.format("a.csv").replace("2026", "yesterday "), "cannot be read: Invalid timestamp"),
    "too long a name": (lambda: END + ROW.format("a/" * 1600 + "b.csv"), "it is longer than 3000 bytes"),
    "more, but not where": (lambda: "<IsTruncated>true</IsTruncated>" + ROW.format("a.csv"), "breaks off"),
    "always the same": (lambda: MORE.format(next(EVERY_NUMBER)) + ROW.format("a.csv"), "'set/a.csv' twice"),
    "nothing without end": (lambda: MORE.format(next(EVERY_NUMBER)), "does not end: 0 objects in 12 answers"),
    "new ones without end": (
        lambda: MORE.format(number := next(EVERY_NUMBER)) + ROW.format(f"{number}.csv"),
        "does not end: 101 objects in 101 answers",
    ),
}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BadServer]:
    monkeypatch.setattr(s3_source, "LONGEST_WAIT", 0.0)
    monkeypatch.setattr(s3_source, "MOST_OBJECTS", 100)
    monkeypatch.setattr(s3_source, "EMPTY_PAGES", 10)
    for name, value in {"ACCESS_KEY_ID": "key", "SECRET_ACCESS_KEY": "secret", "MAX_ATTEMPTS": "1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    with serving(objects("pictures", FILES)) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.port}")
        yield server


@pytest.mark.parametrize("kind", LISTS)
def test_a_list_that_is_none(server: BadServer, kind: str) -> None:
    say, words = LISTS[kind]
    server.origin = lambda *_: Answer(200, f"<ListBucketResult>{say()}</ListBucketResult>".encode(), "application/xml")
    with pytest.raises(DataError, match=words):
        s3_source.S3Source("s3://pictures/set", 1).entries()


def restarting(method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
    """Sends less and less of the object, and all of it, in turn, as if no part of it had been asked for."""
    return Answer(200, b"x" * (99_990 if "Range" not in headers else 10), "image/jpeg")


ANSWERS: dict[str, tuple[Callable[..., Answer], str]] = {
    "a redirect to itself": (lambda *_: Answer(302, headers={"Location": "/"}), "maximum recursion depth"),
    "no time": (lambda *_: Answer(200, b"x", headers={"Last-Modified": "now"}), "cannot be read: Invalid timestamp"),
    "much more than was listed": (lambda *_: Answer(200, bytes(9_000_000)), "131072 bytes arrived, not 100000"),
    "never the same part": (restarting, "could not be fetched in 5 attempts: the answer was too short"),
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_an_object_that_never_comes(server: BadServer, tmp_path: Path, kind: str) -> None:
    server.origin, words = ANSWERS[kind]
    source = s3_source.S3Source("s3://pictures/set", 1)
    with pytest.raises(DataError, match=words):
        source.fetch("a.jpg", Entry(100_000, md5(FILES["set/a.jpg"])), tmp_path / "a.jpg")


@pytest.mark.parametrize("is_right", [True, False])
def test_an_object_in_several_parts_is_compared_with_its_checksum(
    server: BadServer, tmp_path: Path, is_right: bool
) -> None:
    content = FILES["set/a.jpg"]
    checksum = base64.b64encode(zlib.crc32(content).to_bytes(4, "big")).decode()
    sent = content if is_right else content[:-1] + b"x"
    server.origin = lambda *_: Answer(200, sent, "image/jpeg", {"x-amz-checksum-crc32": checksum})
    source, target = s3_source.S3Source("s3://pictures/set", 1), tmp_path / "a.jpg"
    entry = Entry(len(content), f"{md5(content)}-2")
    if is_right:
        source.fetch("a.jpg", entry, target)
        assert target.read_bytes() == content
    else:
        with pytest.raises(DataError, match=r"5 attempts: Expected checksum .* did not match"):
            source.fetch("a.jpg", entry, target)
        assert not target.exists()


def test_an_object_whose_name_is_a_folder_too(server: BadServer, tmp_path: Path) -> None:
    server.origin = objects("pictures", {**FILES, "set/labels.csv/more.txt": b"more"})
    with pytest.raises(DataError, match="rename or remove one of those that are a file and a folder in s3://pictures"):
        Cache(tmp_path, 10**9, 1).bring(s3_source.S3Source("s3://pictures/set", 1))


@pytest.mark.parametrize(("code", "todo"), [("ExpiredToken", "AWS_SESSION_TOKEN"), ("RequestTimeTooSkewed", "clock")])
def test_what_to_do_about_temporary_keys_and_a_wrong_clock(server: BadServer, code: str, todo: str) -> None:
    body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
    server.origin = lambda *_: Answer(403, body, "application/xml")
    with pytest.raises(DataError) as caught:
        s3_source.S3Source("s3://pictures/set", 1).entries()
    (problem,) = caught.value.problems
    assert code in problem.what
    assert todo in problem.todo
