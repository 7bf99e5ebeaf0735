"""A request to an application behind CheckedBodies, without a socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from capnet.serving.bodies import CheckedBodies, Message, Receive, Send
from capnet.serving.request import Limits

LIMITS = Limits(images=2, megabytes=0.01, seconds=0.5)  # 2,000 parts, 20,000 bytes
GOOD = b'{"dataframe_records": [{"image": "abc"}]}'
JSON = "application/json"


class Server:
    """A request to an application behind CheckedBodies: what it got, and what the client gets."""

    def __init__(
        self, chunks: Sequence[bytes], kind: str | None = JSON, ends: bool = True, leaves: bool = False
    ) -> None:
        self.got: list[bytes] = []
        self.answers: list[Message] = []
        self.read = 0
        self._chunks, self._ends, self._leaves = list(chunks), ends, leaves
        headers = [] if kind is None else [(b"content-type", kind.encode("latin-1"))]
        self.scope: dict[str, Any] = {"type": "http", "method": "POST", "path": "/invocations", "headers": headers}

    async def receive(self) -> Message:
        if self.read < len(self._chunks):
            self.read += 1
            more = self.read < len(self._chunks) or not self._ends
            return {"type": "http.request", "body": self._chunks[self.read - 1], "more_body": more}
        if self._leaves:
            return {"type": "http.disconnect"}
        await asyncio.sleep(60)
        raise AssertionError("nobody waits so long")

    async def send(self, message: Message) -> None:
        self.answers.append(message)

    async def app(self, scope: Message, receive: Receive, send: Send) -> None:
        self.got.append((await receive()).get("body", b""))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def run(self) -> int:
        """The status of the answer; 0 for none."""
        asyncio.run(CheckedBodies(self.app, LIMITS, "models:/käfer/7")(self.scope, self.receive, self.send))
        return int(self.answers[0]["status"]) if self.answers else 0

    @property
    def message(self) -> str:
        return str(json.loads(self.answers[1]["body"])["message"])
