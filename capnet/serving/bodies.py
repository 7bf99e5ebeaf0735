"""What a body must be before MLflow makes a table of it: JSON, in time, and no larger than the images that a request
may have.

MLflow's server reads any body to its end and parses it as a whole before the model is asked. A Parquet file of 120 kB
can have 50 million rows, and 30 MB of `[],[],[]` take 3 GB. Where a client leaves half-way, what it had sent stays in
memory until Python collects the traceback of it.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from time import monotonic
from typing import Any, TypeAlias
from urllib.parse import quote

from capnet.errors import DataError, one_line
from capnet.serving.request import ARRIVED, MEGA, VARIABLE, Limits

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Headers: TypeAlias = Sequence[tuple[bytes, bytes]]
App: TypeAlias = Callable[[Message, Receive, Send], Awaitable[None]]

logger = logging.getLogger(__name__)

JSON = "application/json"
PARTS = 1000  # lists, objects and commas of a body for each image that a request may have
LONGEST = 100_000  # letters of all names, and of all texts that are no base64
NAMES = 100  # different ones, of which a table has a column each, and values of a row
RECORDS = '{"dataframe_records": [{"image": "..."}]}'
OPENING, REASON = 300, 10_000  # letters of MLflow's message that an answer has: its first and its last ones
LONGEST_ANSWER = 20_000  # bytes of an error's answer that is not cut
OF_CONTENT = (b"content-type", b"content-length")  # headers that are others after a cut
TEXT = 2  # bytes of a body for each byte of its images: base64 takes 1.37 with breaks, escapes take more
CODES = {
    400: "BAD_REQUEST",
    408: "BAD_REQUEST",
    413: "INVALID_PARAMETER_VALUE",
    415: "INVALID_PARAMETER_VALUE",
    503: "TEMPORARILY_UNAVAILABLE",
}


class Refused(DataError):
    """A body is not handed on; ``status`` is that of the answer."""

    def __init__(self, status: int, what: str, todo: str) -> None:
        super().__init__(what, "request", todo)
        self.status = status


class CheckedBodies:
    """An ASGI application that hands on to ``app`` what has a body within ``limits``, or none.

    A body that is refused is read to its end and dropped, so that its client gets the answer. Every answer names the
    ``model`` in a header, and an error's repeats little of its request: a client that never reads it would keep that
    in memory.
    """

    def __init__(self, app: App, limits: Limits, model: str) -> None:
        self._app, self._limits = app, limits
        self._header = (b"capnet-model", quote(model, safe=":/ ").encode())

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""

        held = list[Message]()

        async def send_with_model(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), self._header]
                if message["status"] >= 400:
                    held.append(message)  # its length may change
                    return
            elif held:
                start = held.pop()
                body = message.get("body", b"")
                is_whole = (b"content-length", str(len(body)).encode()) in start["headers"]
                if len(body) > LONGEST_ANSWER and (is_whole or not message.get("more_body")):
                    message["body"] = _cut(message["body"])
                    kept = [item for item in start["headers"] if item[0].lower() not in OF_CONTENT]
                    start["headers"] = [*kept, *_content_headers(message["body"])]
                await send(start)
            await send(message)

        await self._answered(scope, receive, send_with_model)

    async def _answered(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            return await self._app(scope, receive, send)
        body = None
        try:
            async with asyncio.timeout(self._limits.seconds):
                body = await self._body(scope["headers"], receive)
                if body is not None:
                    ARRIVED.set(monotonic())
                    await asyncio.to_thread(_parse, body, self._limits.megabytes * TEXT * MEGA)
        except TimeoutError:
            return await _answer(self._late(body is not None), send)
        except Refused as refused:
            return await _answer(refused, send)
        if body is None:
            return None
        read: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        del body  # the application's own, from here on

        async def receive_again() -> Message:
            return read.pop() if read else await receive()

        return await self._app(scope, receive_again, send)

    async def _body(self, headers: Headers, receive: Receive) -> bytes | None:
        """The whole body; None where the client has gone.

        Raises:
            Refused: it is not of a kind or size that is handed on.
        """
        refused = _of_headers(headers)
        chunks: list[bytes] = []
        size, parts = 0, 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            chunk = message.get("body", b"")
            size, parts = size + len(chunk), parts + sum(chunk.count(mark) for mark in (b"{", b"[", b","))
            refused = refused or self._too_much(size, parts)
            if refused:
                chunks.clear()
            else:
                chunks.append(chunk)
            if not message.get("more_body", False):
                break
        if refused:
            raise refused
        return b"".join(chunks)

    def _late(self, whole: bool) -> Refused:
        """``whole``: the body is there, and no thread was free to parse it, because others are being scored."""
        seconds = f"within {self._limits.seconds:g} seconds"
        if whole:
            todo = f"send it again later; the limit is {VARIABLE}AT_ONCE of the server"
            return Refused(503, f"no turn {seconds}", todo)
        todo = f"send a smaller one; the limit is {VARIABLE}SECONDS of the server"
        return Refused(408, f"no whole body {seconds}", todo)

    def _too_much(self, size: int, parts: int) -> Refused | None:
        most = self._limits.megabytes * TEXT
        if size > most * MEGA:
            todo = f"send fewer or smaller images; the limit is twice {VARIABLE}MEGABYTES of the server"
            return Refused(413, f"a body of more than {most:g} million bytes", todo)
        if parts > self._limits.images * PARTS:
            what = f"a body of more than {self._limits.images * PARTS} lists, objects and commas"
            return Refused(413, what, f"send images alone; the limit is {PARTS} for each of {VARIABLE}IMAGES")
        return None


def _of_headers(headers: Headers) -> Refused | None:
    """Why a body with these headers is not handed on; None where it is. Each may be there several times."""
    for kind in [value.decode("latin-1") for name, value in headers if name == b"content-type"] or [""]:
        if kind.partition(";")[0].strip().lower() != JSON:
            return Refused(415, f"a body of type {kind[:60]!r}", f"send JSON, and the header Content-Type: {JSON}")
    for encoding in [value.decode("latin-1") for name, value in headers if name == b"content-encoding"]:
        if encoding.strip().lower() != "identity":
            what = f"a body with Content-Encoding {encoding[:60]!r}"
            return Refused(415, what, "send it as it is, without this header")
    return None


def _parse(body: bytes, most: float) -> None:
    """Raise Refused where a body is no JSON, or would take far more memory as MLflow's table than it has bytes.

    MLflow's answer would repeat long texts that are no images, with up to ten letters for a byte. Its table has as many
    cells in each row as there are names in any, or values in the longest; ``instances`` and ``inputs`` become arrays,
    in each of which all texts take as much as the longest.

    Args:
        body: in full.
        most: bytes that a body may have; also letters of such arrays, of four bytes each.
    """
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        what = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise Refused(400, f"a body that does not parse: {what}", "send JSON in UTF-8") from None
    names, letters, arrays = _measured(content)
    if letters > LONGEST:
        what = f"names and texts that are no images in base64 of more than {LONGEST:,} letters"
        raise Refused(400, what, f"send {RECORDS}")
    if names > NAMES:
        raise Refused(400, f"a table of more than {NAMES} columns, or more names", f"send {RECORDS}")
    if arrays > most:
        what = f"arrays of texts that take more than {most / MEGA:g} million letters, each as many as the longest"
        raise Refused(413, what, f"send {RECORDS}, or fewer images at a time")


def _measured(content: Any) -> tuple[int, int, int]:
    """What is bounded of a body.

    Returns:
        Different names, or what the longest row or list of columns has if that is more; letters of all names, and of
        all texts that stand for no table or are no base64; and letters of arrays of texts, each of which has as many
        as the longest below its name.
    """
    tables = content.values() if isinstance(content, dict) else [content]
    letters = sum(len(table) for table in tables if isinstance(table, str))
    names, longest_row, texts = set[str](), 0, dict[str, tuple[int, int]]()
    has_arrays = isinstance(content, dict) and not {"instances", "inputs"}.isdisjoint(content)
    pending: list[tuple[str, bool, Any]] = [("", False, content)]
    while pending:
        name, is_in_list, item = pending.pop()
        if isinstance(item, dict):
            letters += sum(map(len, item))
            names.update(item)
            pending += [(key, False, value) for key, value in item.items()]
        elif isinstance(item, list):
            if is_in_list or name == "columns":
                longest_row = max(longest_row, len(item))
            pending += [(name, True, inner) for inner in item]
        else:
            length = len(item) if isinstance(item, str) else 0
            letters += length if isinstance(item, str) and not item.isascii() else 0
            number, longest = texts.get(name, (0, 0))
            texts[name] = number + 1, max(longest, length)
    arrays = sum(number * longest for number, longest in texts.values()) if has_arrays else 0
    return max(len(names), longest_row), letters, arrays


def _cut(answer: bytes) -> bytes:
    """An error's answer without its middle, which repeats the request; the reason is at the end of MLflow's message."""
    try:
        content = json.loads(answer)
        message = str(content["message"])
    except (ValueError, TypeError, KeyError):  # of another library
        content, message = {}, answer.decode(errors="replace")
    if len(message) > OPENING + REASON:
        message = f"{message[:OPENING]} ... {message[-REASON:]}"
    return json.dumps({**content, "message": message}).encode()


def _content_headers(body: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"content-type", JSON.encode()), (b"content-length", str(len(body)).encode())]


async def _answer(refused: Refused, send: Send) -> None:
    logger.warning("answered with %d: %s", refused.status, one_line(str(refused)))
    content = json.dumps({"error_code": CODES[refused.status], "message": str(refused)}).encode()
    headers = _content_headers(content)
    if refused.status == 408:
        headers.append((b"connection", b"close"))  # the rest of its body is no next request
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
