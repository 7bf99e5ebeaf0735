"""How the server reads HTTP, with real connections to a small application."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
import uvicorn

from capnet.serving.bodies import App, CheckedBodies, Message, Receive, Send
from capnet.serving.connections import LONGEST_HEADERS, BoundedHeaders
from capnet.serving.request import Limits

pytestmark = pytest.mark.slow

HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
GET = b"GET / HTTP/1.1\r\nHost: x\r\n"
LAST = b"Connection: close\r\n\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


async def length(scope: Message, receive: Receive, send: Send) -> None:
    """Answers with how long the body was."""
    if scope["type"] != "http":
        return
    size = len((await receive())["body"]) if scope["method"] == "POST" else 0
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"8")]})
    await send({"type": "http.response.body", "body": f"{size:08}".encode()})


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    app: App = CheckedBodies(length, Limits(seconds=20), "model")
    server = uvicorn.Server(uvicorn.Config(app, port=0, http=BoundedHeaders, lifespan="off", log_level="critical"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join()


def answer(port: int, *sent: bytes) -> bytes:
    """All that comes until the server ends the connection."""
    got = b""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        with suppress(ConnectionError):
            for part in sent:
                connection.sendall(part)
        with suppress(ConnectionError):
            while part := connection.recv(65_536):
                got += part
    return got


def test_a_body_in_chunks_of_one_byte_arrives_whole(port: int) -> None:
    body = json.dumps({"dataframe_records": [{"image": "A" * 50_000}]}).encode()
    chunks = b"".join(b"1\r\n%c\r\n" % letter for letter in body)
    assert answer(port, CHUNKED + chunks + b"0\r\n\r\n").endswith(b"%08d" % len(body))


def test_others_are_answered_while_chunks_of_one_byte_arrive(port: int) -> None:
    """uvicorn's parser in Python took 0.3 s for every 64 kB of them, in the loop that answers everybody."""
    stop = threading.Event()

    def send() -> None:
        with socket.create_connection(("127.0.0.1", port)) as connection, suppress(OSError):
            connection.sendall(CHUNKED)
            while not stop.is_set():
                connection.sendall(b"1\r\n \r\n" * 20_000)

    threads = [threading.Thread(target=send) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        assert all(b"200 OK" in answer(port, GET + LAST) for _ in range(3))
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize("size", [LONGEST_HEADERS - 1000, 1_000_000, 20_000_000])
@pytest.mark.parametrize("lines", ["one", "many"])
def test_headers_have_an_end(port: int, size: int, lines: str) -> None:
    """httptools keeps all that come."""
    header = b"X: " + b"a" * size if lines == "one" else b"\r\n".join([b"X: " + b"a" * 95] * (size // 100))
    parts = [header[start : start + 10_000] for start in range(0, len(header), 10_000)]
    got = answer(port, GET, *parts, b"\r\n" + LAST)
    if size < LONGEST_HEADERS:
        assert b"200 OK" in got
    else:
        assert b"200 OK" not in got
        assert not got or got.startswith(b"HTTP/1.1 400")


def test_the_extensions_of_a_chunk_have_an_end(port: int) -> None:
    got = answer(port, CHUNKED + b"1;a=", *[b"b" * 10_000] * 2000, b"\r\n7\r\n0\r\n\r\n")
    assert not got or got.startswith(b"HTTP/1.1 400")


def test_two_lengths_of_a_body_are_refused(port: int) -> None:
    """A proxy that believes the other one would take the rest for the next request."""
    assert answer(port, HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n").startswith(b"HTTP/1.1 400")


def test_many_requests_on_a_connection_are_no_long_headers(port: int) -> None:
    requests = (GET + b"\r\n") * 5000
    assert len(requests) > 2 * LONGEST_HEADERS
    assert answer(port, requests + GET + LAST).count(b"200 OK") == 5001
